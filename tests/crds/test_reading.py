"""Objects that were stored under other rules, read by their parts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crds.inference_service import InferenceServiceSpec
from crds.kinds import KINDS
from crds.model import ModelSpec
from crds.reading import UNREAD, concerns, explained, understood, unread_of
from crds.sla import SLASpec
from crds.tenant import TenantSpec
from tests.crds.invalid import VALID_SPEC

SPECS = {"InferenceService": InferenceServiceSpec, "Model": ModelSpec, "SLA": SLASpec, "Tenant": TenantSpec}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**13) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def read(kind: str, spec: Any, **more: Any) -> dict[str, Any]:
    return understood({"kind": kind, "metadata": {"name": "it"}, "spec": spec, **more})


def paths(obj: dict[str, Any]) -> list[str]:
    return [".".join(one.path) for one in unread_of(obj)]


def test_what_can_be_read_is_the_same_object() -> None:
    obj = {"kind": "SLA", "metadata": {"name": "it"}, "spec": {"priority": "P1"}, "status": {"services": 2}}
    assert understood(obj) is obj
    assert unread_of(obj) == ()


def test_what_is_not_of_ours_is_the_same_object() -> None:
    obj = {"kind": "Secret", "metadata": {"name": "it"}}
    assert understood(obj) is obj


def test_a_number_beyond_its_bound_counts_as_the_bound() -> None:
    tenant = read("Tenant", {"namespaces": ["demo"], "weight": 5000, "limits": {"concurrency": 0}})
    assert tenant["spec"] == {"namespaces": ["demo"], "weight": 1000, "limits": {"concurrency": 1}}
    assert explained(unread_of(tenant)) == (
        "spec.limits.concurrency is 0: Input should be greater than or equal to 1 (1 counts meanwhile). "
        "spec.weight is 5000: Input should be less than or equal to 1000 (1000 counts meanwhile). "
        "It was stored under other rules than this release's. Apply it anew, with what is allowed."
    )


def test_what_has_no_nearest_value_is_left_out_and_all_else_counts() -> None:
    sla = read("SLA", {"priority": "P1", "targets": {"ttft": "0.5s", "tpot": "50ms"}, "window": "4w"})
    assert sla["spec"] == {"priority": "P1", "targets": {"tpot": "50ms"}}
    assert paths(sla) == ["spec.targets.ttft", "spec.window"]


def test_of_a_list_only_the_items_in_question_are_left_out() -> None:
    keys = [{"secret": "a"}, {}, {"secret": "B_d"}, {"secret": "c"}]
    tenant = read("Tenant", {"namespaces": ["demo"], "apiKeys": keys})
    assert tenant["spec"]["apiKeys"] == [{"secret": "a"}, {"secret": "c"}]


def test_a_tenant_keeps_all_namespaces_that_it_lists_however_many() -> None:
    names = [f"n{number}" for number in range(70)]
    tenant = read("Tenant", {"namespaces": [*names, 7], "weight": 0})
    assert tenant["spec"]["namespaces"] == names
    assert read("Tenant", {"namespaces": "demo"})["spec"]["namespaces"] == []


def test_a_value_that_a_spec_must_have_is_stood_in_for() -> None:
    service = read("InferenceService", {"model": 7, "accelerator": {"mig": {"profile": "9g.1gb"}}, "replicas": 2})
    assert service["spec"] == {"model": "unread", "accelerator": {"cpu": {}}, "replicas": 2}
    assert paths(service) == ["spec.model", "spec.accelerator.mig.profile"]


@pytest.mark.parametrize("spec", [None, "what?", [], {}])
def test_an_object_without_a_spec_has_one_that_can_be_read(spec: Any) -> None:
    for kind, model in SPECS.items():
        obj = read(kind, spec)
        assert unread_of(obj)
        if kind != "Tenant":
            model.model_validate(obj["spec"])


def test_a_part_of_a_status_that_cannot_be_read_takes_nothing_else_with_it() -> None:
    nodes = [{"name": "a", "state": "Odd"}, {"name": "b", "state": "Cached"}]
    model = read("Model", {"source": "file:///m.gguf"}, status={"nodes": nodes, "digest": "sha256:1"})
    assert model["status"] == {"nodes": nodes[1:], "digest": "sha256:1"}
    assert model["spec"] == {"source": "file:///m.gguf"}
    assert unread_of(model) == ()
    assert [one.path[:4] for one in unread_of(model, "status")] == [("status", "nodes", "0", "state")]


def test_a_field_is_concerned_by_what_lies_in_it_and_by_the_whole() -> None:
    unread = unread_of(read("Tenant", {"namespaces": ["demo"], "quota": {"gpus": "four"}}))
    assert concerns(unread, "quota")
    assert not concerns(unread, "apiKeys", "limits")
    assert concerns(unread_of(read("Tenant", "what?")), "apiKeys")


def test_many_values_are_told_by_their_number() -> None:
    tenant = read("Tenant", {"namespaces": [1, 2, 3, 4, "demo", "x" * 200]})
    message = explained(unread_of(tenant))
    assert "So are 2 more." in message
    assert len(message) < 600


@given(kind=st.sampled_from(sorted(SPECS)), field=st.integers(0, 40), value=JSON, status=JSON)
def test_whatever_stands_in_a_field_what_is_left_can_be_read(kind: str, field: int, value: Any, status: Any) -> None:
    described = next(one for one in KINDS if one.kind == kind)
    names = [one.alias or name for name, one in described.spec.model_fields.items()]
    spec = VALID_SPEC[kind] | {names[field % len(names)]: value}
    obj = read(kind, spec, status=status)
    readable = dict(obj["spec"])
    if kind == "Tenant" and UNREAD in obj:
        readable["namespaces"] = ["any"]
    described.spec.model_validate(readable)
    if obj.get("status"):
        described.status.model_validate(obj["status"])
