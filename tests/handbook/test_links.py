"""Links of README and its neighbours, which the handbook's build never sees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors.index import slugify

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def links(path: Path) -> list[str]:
    """Targets of links and images that are no addresses of the Internet."""
    tokens = MarkdownIt().parse(path.read_text(encoding="utf-8"))
    inline = [child for token in tokens for child in token.children or ()]
    found = [str(child.attrs.get("href") or child.attrs.get("src") or "") for child in inline]
    return [target for target in found if target and not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """What can stand behind `#`: the repository's view makes it of each heading."""
    tokens = MarkdownIt().parse(path.read_text(encoding="utf-8"))
    titles = [tokens[at + 1] for at, token in enumerate(tokens) if token.type == "heading_open"]
    return {slugify("".join(child.content for child in title.children or ())) for title in titles}


def broken(path: Path) -> list[str]:
    found = []
    for target in links(path):
        name, _, anchor = target.partition("#")
        to = path.parent / name if name else path
        if not to.exists() or (anchor and anchor not in anchors(to)):
            found.append(target)
    return found


@pytest.mark.parametrize("name", PAGES)
def test_links_of_the_repositorys_first_pages_lead_somewhere(name: str) -> None:
    assert links(ROOT / name)
    assert not broken(ROOT / name)


def test_a_missing_file_and_a_missing_anchor_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One thing\n[a](#one-thing) [b](page.md#two) [c](none.md) [d](https://example.com)\n")
    assert broken(page) == ["page.md#two", "none.md"]
