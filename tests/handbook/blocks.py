"""The blocks of commands and of YAML in the handbook's pages, and the marks that say what one needs.

A mark is a comment on the line above: `<!-- needs: a GPU -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

ROOT: Final = Path(__file__).parents[2]
_PROGRAMS: Final = (
    "kubectl",
    "helm",
    "docker",
    "make",
    "foretide",
    "curl",
    "python",
    "python3",
    "git",
    "flux",
    "argocd",
)
_MARK: Final = re.compile(r"<!-- needs: (.+?) -->")


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a page. `needs` is what CI lacks to run it, where a mark says so."""

    page: str
    line: int
    kind: str
    """`console` or `yaml`."""
    text: str
    needs: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Each on one line, without the prompt and what is printed."""
        whole = re.sub(r"\\\n\s*", "", self.text)
        lines = whole.splitlines()
        if any(line.startswith("$ ") for line in lines):
            return [line[2:] for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def pages() -> list[Path]:
    """All that people read; results and decisions have no commands to follow."""
    found = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return sorted(path for path in found if not {"benchmarks", "decisions"} & set(path.parts))


def blocks(path: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for token in MarkdownIt().parse(text):
        if token.type not in ("fence", "code_block") or token.map is None:
            continue
        if (kind := _kind(token.info.strip(), token.content)) is not None:
            above = next((line for line in reversed(lines[: token.map[0]]) if line.strip()), "")
            mark = _MARK.fullmatch(above.strip())
            page = str(path.relative_to(ROOT))
            yield Block(page, token.map[0] + 1, kind, token.content, mark[1] if mark else None)


def _kind(info: str, text: str) -> str | None:
    """None for drawings, outputs and whatever else is neither run nor applied."""
    if info in ("console", "bash", "sh"):
        return "console"
    if info == "yaml":
        return "yaml"
    first = text.lstrip().split(maxsplit=1)[:1]
    return "console" if not info and first and (text.startswith("$ ") or first[0] in _PROGRAMS) else None
