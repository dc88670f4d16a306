"""Where the scheduler is asked to put workers."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.plans.placement import node_affinity
from controllers.plans.worker_pod import worker_template
from crds.inference_service import Accelerator
from tests.gen import service_spec, snapshot
from tests.plans.test_worker_pod import BOTH


def pod(**fields: Any) -> dict[str, Any]:
    seen = snapshot(spec=service_spec(**fields))
    assert seen.model
    found: dict[str, Any] = worker_template(seen, seen.model, BOTH).manifest
    return found


def test_each_revision_is_spread_over_hosts_and_away_from_its_zones_and_starts_anyway() -> None:
    found = pod()["spec"]
    (hosts,) = found["topologySpreadConstraints"]
    assert (hosts["topologyKey"], hosts["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    (zones,) = found["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert zones["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
    for one in (hosts, zones["podAffinityTerm"]):
        assert one["labelSelector"]["matchLabels"] == {"foretide.dev/inference-service": "chat"}
    assert hosts["matchLabelKeys"][0] in pod()["metadata"]["labels"], "the scheduler reads its value from the pod"


def test_zones_may_be_required_and_hosts_never_are() -> None:
    found = pod(placement={"zones": "required"})["spec"]
    constraints = found["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert [one["whenUnsatisfiable"] for one in constraints] == ["DoNotSchedule", "ScheduleAnyway"]
    assert "affinity" not in found


def test_several_gpus_prefer_nodes_where_they_are_wired_to_each_other_and_that_they_fill() -> None:
    wishes = pod(accelerator={"gpu": {"count": 4}})["spec"]["affinity"]["nodeAffinity"]
    preferred = wishes["preferredDuringSchedulingIgnoredDuringExecution"]
    keys = [one["preference"]["matchExpressions"][0]["key"] for one in preferred]
    assert keys[:2] == ["nvidia.com/gpu.clique", "nvidia.com/gpu.count"]
    assert preferred[1]["preference"]["matchExpressions"][0]["values"] == ["4"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in wishes


def score(gpus: int, **labels: str) -> int:
    """What the scheduler adds up for a node with these labels."""
    known = {"nvidia.com/gpu.count": "8", "feature.node.kubernetes.io/kernel-version.major": "6"}
    known |= {NAMES[name]: value for name, value in labels.items()}
    affinity = node_affinity(Accelerator.model_validate({"gpu": {"count": gpus}}))
    return sum(
        one["weight"]
        for one in affinity["preferredDuringSchedulingIgnoredDuringExecution"]
        if all(matches(each, known) for each in one["preference"]["matchExpressions"])
    )


NAMES = {
    "numa": "feature.node.kubernetes.io/memory-numa",
    "policy": "foretide.dev/topology-manager-policy",
    "clique": "nvidia.com/gpu.clique",
    "count": "nvidia.com/gpu.count",
}


def matches(expression: dict[str, Any], labels: dict[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "In":
            return value in expression["values"]
        case "Gt":
            return value is not None and int(value) > int(expression["values"][0])
    raise AssertionError(expression)


def test_several_gpus_prefer_one_numa_node_or_a_kubelet_that_takes_them_from_one() -> None:
    split = score(2, numa="true")
    assert score(2) == score(2, numa="true", policy="best-effort") == score(2, numa="true", policy="restricted") > split
    assert score(2, clique="a.0", numa="true") > score(2), "the fabric matters more"
    assert score(8, numa="true") > score(2, numa="true"), "and so does a node that is filled"


def test_a_kubelet_that_turns_away_what_one_numa_node_cannot_hold_is_preferred_where_half_the_node_is_enough() -> None:
    assert score(4, numa="true", policy="single-numa-node") > score(4, numa="true")
    assert score(5, numa="true", policy="single-numa-node") == score(5, numa="true")


@pytest.mark.parametrize("accelerator", [{"cpu": {}}, {"gpu": {}}, {"mig": {"profile": "1g.10gb"}}])
def test_one_device_has_no_wish(accelerator: dict[str, Any]) -> None:
    assert node_affinity(Accelerator.model_validate(accelerator)) == {}
    assert "nodeAffinity" not in pod(accelerator=accelerator)["spec"]["affinity"]
