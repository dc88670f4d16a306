"""Helm values as strangers write them: any value of any kind anywhere is rendered whole, or refused with its path."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, Final

import yaml

from tests.charts.test_foretide import CHART, template

STRANGE: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 2**40, 1.5, "", "x", "a: b\n- c", "{{ .Values }}", '"', "é" * 300, [], ["x"], [None], {},
    {"a": {}},
)  # fmt: skip
SAMPLED: Final = 24
"""A rendering takes most of a second."""


def paths(value: Any, path: str = "") -> Iterator[str]:
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield (here := f"{path}.{name}" if path else name)
        yield from paths(inner, here)


def worse_than_a_sentence(path: str, value: Any) -> str | None:
    """What is wrong with the rendering of one strange value; None where it was rendered whole or refused."""
    done = template("--set-json", f"{path}={json.dumps(value)}")
    if done.returncode == 0:
        found = [one for one in yaml.safe_load_all(done.stdout) if one is not None]
        return (
            None if all(isinstance(one, dict) and one.get("kind") for one in found) else "what is rendered is no object"
        )
    refused = "values don't meet the specifications of the schema" in done.stderr or "fail" in done.stderr
    return None if refused and "nil pointer" not in done.stderr else done.stderr[-400:]


def test_a_strange_value_is_rendered_whole_or_refused() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    cases = [(path, value) for path in paths(values) for value in STRANGE]
    sampled = random.Random(1).sample(cases, SAMPLED)
    wrong = {(path, repr(value)): said for path, value in sampled if (said := worse_than_a_sentence(path, value))}
    assert not wrong
