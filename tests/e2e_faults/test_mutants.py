"""The mutations: all fields, in every way, and nothing of a base is changed in place."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

from crds.kinds import KINDS
from crds.render import object_schema
from e2e.faults.mutants import BASES, mutations, named
from e2e.faults.mutations import BATCH, batches

EVERY = list(mutations())


def paths(schema: dict[str, Any], at: str = "") -> Iterator[str]:
    for name, field in (schema.get("properties") or {}).items():
        yield f"{at}{name}"
        inner = field.get("items") or {} if field.get("type") == "array" else field
        yield from paths(inner, f"{at}{name}.0." if field.get("type") == "array" else f"{at}{name}.")


def test_there_are_a_thousand_and_each_is_told_apart_from_all_others() -> None:
    assert len(EVERY) > 1000
    assert max(Counter(map(str, EVERY)).values()) == 1


def test_every_field_of_every_kind_is_mutated_in_several_ways() -> None:
    ways = Counter((one.kind, one.path) for one in EVERY)
    fields = {(kind.kind, path) for kind in KINDS for path in paths(object_schema(kind.spec))}
    assert set(ways) == fields
    assert min(ways.values()) >= 2


def test_no_mutation_is_its_base_and_no_base_is_changed() -> None:
    before = copy.deepcopy(BASES)
    assert all(one.spec != BASES[one.kind] for one in mutations())
    assert before == BASES


def test_a_number_is_tried_at_its_bounds_and_beyond_them() -> None:
    seqs = [one.spec["engine"].get("maxNumSeqs") for one in EVERY if one.path == "engine.maxNumSeqs"]
    assert seqs == [None, None, 1, 0, 4096, 4097, "☃; rm -rf / #"]


def test_batches_hold_each_mutation_once_and_are_of_one_kind() -> None:
    made = list(batches(EVERY))
    assert [one for batch in made for one in batch.mutations] == EVERY
    assert all(len({one.kind for one in batch.mutations}) == 1 for batch in made)
    assert max(len(batch.mutations) for batch in made) == BATCH


def test_the_name_of_an_object_is_put_into_its_spec() -> None:
    assert named({"namespaces": ["NAME", "b"], "of": {"service": "NAME"}}, "x") == {
        "namespaces": ["x", "b"],
        "of": {"service": "x"},
    }
