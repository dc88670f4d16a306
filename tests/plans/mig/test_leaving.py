"""Nodes that are taken away: which marks say so, successors first, a drain in time, restarts, and withdrawn notices."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controllers.plans.interruption import Notice, notice_of
from controllers.plans.mig.demand import Want
from controllers.plans.mig.leaving import Leaving, read_leaving
from controllers.plans.mig.pool_status import pool_status
from crds.gpu_pool import GPUPoolStatus
from tests.plans.mig.pool_world import World, node

SPOT = "aws-node-termination-handler/spot-itn"


def tainted(key: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "n", "labels": labels}, "spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}}


@pytest.mark.parametrize(
    ("key", "seconds"),
    [
        (SPOT, 120),
        ("cloud.google.com/impending-node-termination", 30),
        ("remediator.kubernetes.azure.com/unschedulable", 30),
        ("karpenter.sh/disrupted", 600),
        ("ToBeDeletedByClusterAutoscaler", 600),
        ("node.kubernetes.io/out-of-service", 0),
    ],
)
def test_marks_of_clouds_and_autoscalers_are_notices(key: str, seconds: float) -> None:
    assert notice_of(tainted(key)) == Notice(key, seconds)


def test_karpenter_gives_a_spot_node_two_minutes() -> None:
    found = notice_of(tainted("karpenter.sh/disrupted", **{"karpenter.sh/capacity-type": "spot"}))
    assert found == Notice("karpenter.sh/disrupted", 120)


@pytest.mark.parametrize(
    "key", ["node.kubernetes.io/unschedulable", "nvidia.com/gpu", "DeletionCandidateOfClusterAutoscaler"]
)
def test_a_cordon_a_users_taint_and_a_mere_candidate_are_none(key: str) -> None:
    assert notice_of(tainted(key)) is None


def test_the_most_urgent_of_several_counts() -> None:
    both = tainted("karpenter.sh/disrupted")
    both["spec"]["taints"].append({"key": SPOT})
    assert notice_of(both) == Notice(SPOT, 120)


def test_a_kubelet_that_shuts_down_is_a_short_notice_and_one_that_is_only_not_ready_is_none() -> None:
    down = {"type": "Ready", "status": "False", "message": "node is shutting down"}
    lost = {"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}
    found = [notice_of({"metadata": {}, "status": {"conditions": [one]}}) for one in (down, lost)]
    assert found == [Notice("node is shutting down", 30), None]


def spot_world(*wants: Want) -> World:
    it = World({"n0": node("n0", m1g_10gb=7), "n1": node("n1", m1g_10gb=7)}, list(wants))
    it.put("w", "n0", m1g_10gb=1)
    it.put("x", "n0", service=None, m1g_10gb=1)
    return it


def notify(it: World, key: str = SPOT) -> None:
    it.nodes["n0"]["spec"]["taints"] = [{"key": key, "effect": "NoSchedule"}]


def withdraw(it: World) -> None:
    del it.nodes["n0"]["spec"]["taints"]


def state(it: World) -> str:
    fields, _ = pool_status(it.snapshot(), it.plan(), it.now_s)
    GPUPoolStatus.model_validate(fields)
    return str(fields["nodes"][0]["state"])


def evacuates(it: World) -> bool:
    return it.nodes["n0"]["metadata"]["labels"].get("foretide.dev/evacuate") == "true"


def test_a_notice_takes_the_node_out_of_use_and_asks_for_successors() -> None:
    it = spot_world(Want("demo/s", "1g.10gb", 9, 0))
    it.moved = False
    notify(it)
    it.step()
    assert not it.usable("n0")
    assert evacuates(it)
    assert "w" in it.pods, "successors first"
    fields, made = pool_status(it.snapshot(), it.plan(), it.now_s)
    assert state(it) == "Leaving"
    assert fields["served"] == "7/9", "what goes is not counted on"
    assert next(one for one in made if one["type"] == "Ready")["reason"] == "NodesLeaving"


def test_at_half_of_the_notice_workers_are_drained_all_at_once_and_pods_of_others_are_not() -> None:
    it = spot_world()
    it.moved = False
    it.put("w2", "n0", m1g_10gb=1)
    notify(it)
    it.step(dt_s=59)
    assert it.step(dt_s=1).moves[0].drain == ()
    drained = it.step().moves[0].drain
    assert [pod.name for pod in drained] == ["w", "w2"]
    assert list(it.pods) == ["x"]


def test_a_restart_does_not_begin_the_notice_anew() -> None:
    """Nothing is remembered between two plans but what lies on the Node."""
    it = spot_world()
    it.moved = False
    notify(it)
    it.step(dt_s=61)
    assert read_leaving(it.nodes["n0"]["metadata"]["annotations"]["foretide.dev/interruption"]) is not None
    assert it.plan().moves[0].drain


def test_a_node_that_is_already_lost_is_drained_with_the_next_look() -> None:
    it = spot_world()
    it.moved = False
    notify(it, "node.kubernetes.io/out-of-service")
    it.step(dt_s=1)
    assert it.plan().moves[0].drain


def test_a_node_that_goes_is_not_cordoned_by_us_any_more_once_its_pool_goes_as_well() -> None:
    it = spot_world(Want("demo/s", "1g.10gb", 14, 0))
    notify(it)
    it.run(2)
    it.step(deleting=True)
    assert it.usable("n0")
    assert not evacuates(it)
    assert it.plan(deleting=True).moves == ()


def test_a_notice_that_is_withdrawn_gives_the_node_back() -> None:
    it = spot_world()
    notify(it)
    it.run(2)
    withdraw(it)
    it.run(2)
    assert it.usable("n0")
    assert not evacuates(it)
    assert "foretide.dev/interruption" not in it.nodes["n0"]["metadata"]["annotations"]
    assert state(it) in ("Ready", "Frozen")


def test_a_node_that_somebody_else_had_cordoned_stays_so() -> None:
    it = spot_world()
    it.nodes["n0"]["spec"]["unschedulable"] = True
    notify(it)
    it.run(2)
    withdraw(it)
    it.run(2)
    assert not it.usable("n0")


def test_a_repartition_under_way_is_dropped_and_a_withdrawn_notice_leaves_no_cordon() -> None:
    it = World({"n0": node("n0")}, [Want("demo/s", "1g.10gb", 7, 1)])
    it.plan()
    it.step()
    assert "foretide.dev/repartition" in it.nodes["n0"]["metadata"]["annotations"]
    notify(it)
    it.run(2)
    assert "foretide.dev/repartition" not in it.nodes["n0"]["metadata"]["annotations"]
    asked = it.asked["n0"]
    it.run(5)
    assert it.asked["n0"] == asked, "nobody asks a manager of a machine that goes"
    withdraw(it)
    it.run(15)
    assert it.usable("n0")
    assert it.gives("n0") == {"1g.10gb": 7}


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "[]", "null", "[" * 100_000),
        *(json.dumps({"since_s": since, "cordoned": True}) for since in ("soon", float("inf"))),
    ],
)
def test_an_annotation_that_is_none_of_ours_is_none(text: str) -> None:
    assert read_leaving(text) is None


def test_what_is_written_is_read() -> None:
    assert read_leaving(Leaving(5.0, True).dump()) == Leaving(5.0, True)
