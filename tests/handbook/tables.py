"""Markdown tables of the made pages: cells of any text, whatever it has of Markdown's own signs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """With a line break at its end."""
    lines = [_line(head), "|" + "---|" * len(head), *(_line(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def code(value: str) -> str:
    """As code in a cell; an empty text is an empty cell."""
    fence = "``" if "`" in value else "`"
    return f"{fence}{value.replace('|', chr(92) + '|')}{fence}" if value else ""


def prose(text: str) -> str:
    """A sentence of the code as a cell: what it has in backquotes stays code, every other sign stands for itself."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    shown = [part if part.startswith("`") else re.sub(r"([*_<>\[\]\\])", r"\\\1", part) for part in parts]
    return "".join(shown).replace("|", "\\|")


def value(what: Any) -> str:
    """A default as it is written in a manifest."""
    return code(what if isinstance(what, str) and what else json.dumps(what, ensure_ascii=False))


def made(by: str) -> str:
    """The second paragraph of every made page."""
    return f"<!-- Made by `make generate` from {by}; edit there. -->\n"
