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
    assert keys == ["nvidia.com/gpu.clique", "nvidia.com/gpu.count"]
    assert preferred[1]["preference"]["matchExpressions"][0]["values"] == ["4"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in wishes


@pytest.mark.parametrize("accelerator", [{"cpu": {}}, {"gpu": {}}, {"mig": {"profile": "1g.10gb"}}])
def test_one_device_has_no_wish(accelerator: dict[str, Any]) -> None:
    assert node_affinity(Accelerator.model_validate(accelerator)) == {}
    assert "nodeAffinity" not in pod(accelerator=accelerator)["spec"]["affinity"]
