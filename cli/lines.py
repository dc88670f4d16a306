"""Text for a terminal of 80 columns: tables, wrapped facts, times. Values in, lines out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

WIDTH: Final = 80
GAP: Final = 2
_LEAST: Final = 4


class Form(StrEnum):
    """How an answer is written."""

    TEXT = "text"
    JSON = "json"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], keep: Sequence[str] = ()) -> list[str]:
    """Columns side by side. What does not fit into 80 columns is cut with an ellipsis, the columns of `keep` last."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    others = [at for at, head in enumerate(heads) if head not in keep]
    _shrink(widths, others, [len(head) for head in heads])
    _shrink(widths, range(len(heads)), [_LEAST] * len(heads))
    return [
        (" " * GAP).join(cut(cell, width).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _shrink(widths: list[int], columns: Sequence[int], least: Sequence[int]) -> None:
    """Changes `widths`: the widest of the columns give way until all fit or each is at its least."""
    while sum(widths) + GAP * (len(widths) - 1) > WIDTH:
        able = [at for at in columns if widths[at] > least[at]]
        if not able:
            return
        widths[max(able, key=lambda at: widths[at])] -= 1


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def facts(rows: Sequence[tuple[str, str]], indent: int = 2) -> list[str]:
    """Names on the left, what is known of them on the right, wrapped."""
    left = indent + GAP + max((len(name) for name, _ in rows), default=0)
    lines: list[str] = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, WIDTH - left, break_on_hyphens=False) or [""]
        lines.append((" " * indent + name).ljust(left) + wrapped[0])
        lines += [" " * left + one for one in wrapped[1:]]
    return [line.rstrip() for line in lines]


def wrapped(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent, break_on_hyphens=False
    )


def clock(at: datetime, now: datetime) -> str:
    """`14:05` of today, `2026-03-01 14:05` of another day (UTC)."""
    return at.strftime("%H:%M" if at.date() == now.date() else "%Y-%m-%d %H:%M")


def moment(text: str | None, now: datetime) -> str:
    """A time of an object, as `clock` says it; what is no time stays as it is."""
    if text is None:
        return "an unknown time"
    try:
        return clock(datetime.fromisoformat(text).astimezone(UTC), now)
    except (ValueError, OverflowError):
        return text


def later(at_s: float, add_s: float, now: datetime) -> str:
    """A Unix time and so many seconds, as `clock` says it; a time that no calendar has, in seconds."""
    try:
        return clock(datetime.fromtimestamp(at_s, UTC) + timedelta(seconds=add_s), now)
    except (OverflowError, ValueError, OSError):
        return f"{at_s + add_s:.0f} s"
