"""The pages of docs/ that are made of the code and of results (`python -m tests.handbook.pages` writes them all)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from tests.handbook import benchmarks_page, commands_page, http_page, kind_pages, values_page

DOCS: Final = Path(__file__).parents[2] / "docs"

PAGES: Final[dict[str, Callable[[], str]]] = {
    "benchmarks/index.md": benchmarks_page.page,
    **{name: partial(kind_pages.page, kind) for name, kind in kind_pages.PAGES.items()},
    "reference/commands.md": commands_page.page,
    "reference/http.md": http_page.page,
    "reference/values.md": values_page.page,
}
"""File below docs/ → its whole text."""


def stale() -> list[str]:
    """Pages that differ from what their source gives, or are not there."""
    return [name for name, page in PAGES.items() if not (DOCS / name).exists() or (DOCS / name).read_text() != page()]


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / name).write_text(page(), encoding="utf-8")
