import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.difference import first_difference, merge_conditions, needs_apply, with_hash

WANTED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"namespace": "demo", "name": "chat-1", "labels": {"app": "chat"}},
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {
                "containers": [
                    {"name": "worker", "image": "w:1", "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}}}
                ],
                "volumes": [{"name": "model", "emptyDir": {}}],
            }
        },
    },
}


def stored(wanted: dict[str, Any]) -> dict[str, Any]:
    """As the server has it: its defaults, its spelling, a sidecar that someone injected."""
    found: dict[str, Any] = copy.deepcopy(with_hash(wanted))
    found["metadata"].update(uid="u", resourceVersion="5", generation=1)
    found["status"] = {"replicas": 2}
    spec = found["spec"]["template"]["spec"]
    spec["restartPolicy"] = "Always"
    spec["containers"][0]["resources"]["requests"] = {"cpu": "500m", "memory": "1Gi"}
    spec["containers"].insert(0, {"name": "sidecar", "image": "s:1"})
    return found


def test_what_the_server_made_of_our_manifest_needs_nothing() -> None:
    assert needs_apply(WANTED, stored(WANTED)) is None


def test_what_does_not_exist_is_applied() -> None:
    assert needs_apply(WANTED, None) == "it does not exist"


def test_a_changed_wish_is_applied() -> None:
    newer = {**WANTED, "spec": {**WANTED["spec"], "replicas": 3}}
    assert needs_apply(newer, stored(WANTED)) == "what we want changed"


def test_a_field_that_we_no_longer_want_is_seen() -> None:
    spec = {key: value for key, value in WANTED["spec"].items() if key != "replicas"}
    assert needs_apply({**WANTED, "spec": spec}, stored(WANTED)) == "what we want changed"


def test_a_field_that_someone_changed_is_named_with_both_values() -> None:
    found = stored(WANTED)
    found["spec"]["template"]["spec"]["containers"][1]["image"] = "evil:1"
    assert (
        needs_apply(WANTED, found) == 'spec.template.spec.containers[name=worker].image: wanted "w:1", found "evil:1"'
    )


def test_a_field_that_someone_removed_is_seen() -> None:
    found = stored(WANTED)
    del found["metadata"]["labels"]["app"]
    assert needs_apply(WANTED, found) == 'metadata.labels.app: wanted "chat", found nothing'


def test_an_object_without_our_annotation_is_applied_once() -> None:
    found = stored(WANTED)
    del found["metadata"]["annotations"]
    assert needs_apply(WANTED, found) == "it was not applied by us before"


def test_an_object_that_is_being_deleted_is_left_until_it_is_gone() -> None:
    found = stored(WANTED)
    found["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    assert needs_apply({**WANTED, "spec": {}}, found) is None


def test_one_more_allowed_port_in_a_policy_is_a_difference() -> None:
    wanted = {"ports": [{"port": 8000, "protocol": "TCP"}]}
    observed = {"ports": [{"port": 8000, "protocol": "TCP"}, {"port": 22, "protocol": "TCP"}]}
    assert first_difference(wanted, observed) == "ports: wanted 1 entries, found 2"


@pytest.mark.parametrize(
    ("wanted", "observed", "same"),
    [
        ("0.5", "500m", True),
        (2, "2", True),
        ("1Gi", "1024Mi", True),
        ("1G", "1Gi", False),
        ("1e3", "1k", True),
        # Names of revisions are of the digits 0 to f: one in six hundred reads like a number that no arithmetic holds.
        ("1e99999999", "5d0c17a2b9", False),
        ("5d0c17a2b9", "12e4567890", False),
        (True, 1, False),
        ("true", True, False),
        ("abc", "abd", False),
        ({}, None, True),
        ([], None, True),
        (None, "x", False),
        (False, None, False),
        (0, None, False),
        ({"a": 1}, [1], False),
    ],
)
def test_equal_quantities_and_absent_emptiness_are_equal_and_nothing_else(
    wanted: object, observed: object, same: bool
) -> None:
    assert (first_difference(wanted, observed) is None) is same


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), _json, max_size=4))
def test_whatever_was_applied_needs_no_second_apply(spec: dict[str, Any]) -> None:
    wanted = {"metadata": {"name": "a"}, "spec": spec}
    assert needs_apply(wanted, with_hash(wanted)) is None


NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    old = [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2029-01-01T00:00:00Z", "reason": "Old"},
        {"type": "Gone", "status": "True", "lastTransitionTime": "2029-01-01T00:00:00Z"},
        {"type": "Servable", "status": "True", "lastTransitionTime": "2029-01-01T00:00:00Z"},
    ]
    new = [
        {"type": "Ready", "status": "True", "reason": "New", "message": "m"},
        {"type": "Servable", "status": "False", "reason": "ProbeFailed", "message": "m"},
    ]
    assert merge_conditions(old, new, now=NOW, generation=3) == [
        {**new[0], "observedGeneration": 3, "lastTransitionTime": "2029-01-01T00:00:00Z"},
        {**new[1], "observedGeneration": 3, "lastTransitionTime": "2030-01-01T12:00:00Z"},
    ]
