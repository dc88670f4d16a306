"""When an entry is written."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.model_cache.job import Rate
from controllers.model_cache.report import _Written, due_in_s
from controllers.plans.model import field_manager
from crds.model import NodeCopy


def copy(state: str, done: int = 0, **fields: Any) -> NodeCopy:
    return NodeCopy.model_validate({"name": "n", "state": state, "bytes": done, **fields})


HALF, MORE, DONE = copy("Downloading", 50), copy("Downloading", 60), copy("Cached", 100)


@pytest.mark.parametrize(
    ("entry", "seen", "was", "expected"),
    [
        (DONE, DONE, None, None),
        (DONE, None, None, 0.0),
        (None, DONE, None, 0.0),
        (None, None, None, None),
        (MORE, HALF, _Written("u", HALF, at_s=99.0), 0.5),
        (MORE, HALF, _Written("u", HALF, at_s=90.0), 0.0),
        (DONE, HALF, _Written("u", HALF, at_s=99.9), 0.0),
        (DONE, HALF, _Written("u", DONE, at_s=99.0), 4.0),
        (DONE, None, _Written("u", DONE, at_s=90.0), 0.0),
        (DONE, HALF, _Written("u", DONE, at_s=99.0, failed=True), 1.0),
        (DONE, DONE, _Written("u", HALF, at_s=99.0, failed=True), None),
    ],
    ids=[
        "the server has it",
        "the server has nothing",
        "the entry goes",
        "there is nothing to say",
        "progress waits",
        "progress is due",
        "another state is due at once",
        "the watch may be behind a write",
        "someone else took the entry away",
        "a failed write waits",
        "a failed write that took effect is done",
    ],
)
def test_an_entry_is_due(
    entry: NodeCopy | None, seen: NodeCopy | None, was: _Written | None, expected: float | None
) -> None:
    assert due_in_s(entry, seen, was, now_s=100.0) == expected


def test_the_rate_is_of_the_last_five_seconds() -> None:
    rate = Rate()
    assert rate.at(0.0, 0) is None
    assert rate.at(1.0, 10_000_000) == 10_000_000
    for second in range(2, 20):
        last = rate.at(float(second), 10_000_000 + second)
    assert last == 1


def test_two_long_node_names_have_two_field_managers() -> None:
    names = ["n" * 200 + end for end in "ab"]
    managers = {field_manager(name) for name in names}
    assert len(managers) == 2
    assert all(len(one) == 128 for one in managers)
    assert field_manager("node-1") == "foretide-cache-node-1"
