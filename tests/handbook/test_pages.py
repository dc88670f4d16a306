"""The made pages of docs/: they are what the code says, and what the code says is all there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.handbook import http_page, values_page
from tests.handbook.kind_pages import PAGES, page
from tests.handbook.pages import DOCS, stale
from tests.handbook.tables import prose

ROOT = Path(__file__).parents[2]


def leaves(values: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Every value that a person can set; maps of Kubernetes' or the user's own words are one value."""
    for name, inner in values.items():
        path = f"{within}.{name}" if within else name
        if isinstance(inner, Mapping) and inner and not values_page._is_value(path):
            yield from leaves(inner, path)
        else:
            yield path


def test_the_pages_are_made_of_the_code() -> None:
    assert not stale(), "run `make generate`"


def test_every_helm_value_has_a_row() -> None:
    shown = (DOCS / "reference/values.md").read_text()
    values = yaml.safe_load((ROOT / "charts/foretide/values.yaml").read_text())
    assert not [path for path in leaves(values) if f"| `{path}` |" not in shown]


def test_a_comment_of_the_values_belongs_to_what_stands_below_it() -> None:
    found = {
        one.path: one for one in values_page.values("# Of all.\na:\n  # Of b,\n  # in two lines.\n  b: 1\n  c: 2\n")
    }
    assert found["a"].says == "Of all."
    assert (found["a.b"].says, found["a.b"].default) == ("Of b, in two lines.", 1)
    assert found["a.c"].says == ""


def test_every_field_of_a_kind_has_a_row() -> None:
    for kind in PAGES.values():
        shown = page(kind)
        for name, field in kind.spec.model_fields.items():
            assert f"`{field.alias or name}`" in shown
            assert prose(field.description or "") in shown


def test_headers_that_are_described_are_those_of_the_code() -> None:
    sources = [*(ROOT / "gateway").rglob("*.py"), ROOT / "crds/contract.py"]
    code = "".join(path.read_text() for path in sources)
    assert not [name for name in http_page.HEADERS if f'"{name.rstrip("*")}' not in code]


def test_a_url_that_nobody_described_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(http_page.URLS, "Node agent (port 8083)", {("GET", "/metrics"): "Metrics."})
    with pytest.raises(AssertionError, match="/healthz"):
        http_page.page()


def test_signs_of_markdown_in_a_description_stand_for_themselves() -> None:
    assert prose("a_b | <c> `d_e` [f]") == r"a\_b \| \<c\> `d_e` \[f\]"


def test_the_schema_knows_every_value() -> None:
    schema = json.loads((values_page.CHART / "values.schema.json").read_text())
    with pytest.raises(KeyError, match="nothing"):
        values_page._at(schema, "gateway.nothing")
