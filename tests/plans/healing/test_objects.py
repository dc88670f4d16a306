"""Workers and nodes as the API server shows them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controllers.plans.healing.objects import node_facts, view_of, worker_of
from controllers.plans.healing.values import NodeFacts
from crds.contract import ANNOTATION_FAULTS, ANNOTATION_QUARANTINE

EARLY, LATE = "2026-03-02T12:00:00Z", "2026-03-02T12:00:30Z"


def pod(**status: Any) -> dict[str, Any]:
    meta = {"name": "chat-1", "namespace": "demo", "uid": "u", "labels": {"foretide.dev/revision": "new"}}
    return {"metadata": meta, "spec": {"nodeName": "node-1"}, "status": status}


def node(*conditions: dict[str, Any], **annotations: str) -> dict[str, Any]:
    named = {key: value for key, value in annotations.items() if value}
    return {"metadata": {"name": "node-1", "annotations": named}, "status": {"conditions": list(conditions)}}


def test_a_worker_that_is_ready_says_since_when() -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": EARLY}
    one = worker_of(pod(conditions=[ready], containerStatuses=[{"started": True, "restartCount": 1}]))
    assert (one.ready, one.started, one.ready_since, one.unready_since, one.restarts) == (True, True, EARLY, None, 1)


def test_how_its_last_run_ended_and_how_long_that_took() -> None:
    ended = {"exitCode": 137, "reason": "OOMKilled", "startedAt": EARLY, "finishedAt": LATE}
    status = {"restartCount": 2, "state": {"running": {}}, "lastState": {"terminated": ended}}
    one = worker_of(pod(containerStatuses=[status]))
    assert (one.ended_code, one.ended_reason, one.ran_s) == (137, "OOMKilled", 30.0)


CRASHING = {"name": "worker", "restartCount": 9, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
PROXY = {"name": "istio-proxy", "started": True, "restartCount": 0, "state": {"running": {}}}


def test_the_worker_is_read_and_not_what_an_injector_put_before_it() -> None:
    one = worker_of(pod(containerStatuses=[PROXY, CRASHING]))
    assert (one.waiting_reason, one.restarts, one.started) == ("CrashLoopBackOff", 9, False)


def test_what_holds_a_worker_up_before_it_begins_is_told_and_is_no_fault_of_the_worker() -> None:
    waits = {"name": "worker", "state": {"waiting": {"reason": "PodInitializing"}}}
    bad = {"name": "istio-init", "restartCount": 9, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    done = {"name": "first", "state": {"terminated": {"exitCode": 0}}}
    one = worker_of(pod(containerStatuses=[PROXY, waits], initContainerStatuses=[done, bad]))
    assert (one.waiting_reason, one.restarts) == ("PodInitializing", 0)
    assert one.waiting_message == "init container 'istio-init': CrashLoopBackOff"
    assert worker_of(pod(containerStatuses=[waits], initContainerStatuses=[done])).waiting_message is None


def test_a_worker_behind_a_scheduling_gate_waits_for_that() -> None:
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "blocked"}
    one = worker_of(pod(conditions=[gated]))
    assert (one.waiting_reason, one.unschedulable) == ("SchedulingGated", None)


@pytest.mark.parametrize("status", [{}, {"conditions": None}, {"containerStatuses": []}])
def test_a_pod_that_nobody_has_taken_yet_is_a_worker_without_a_past(status: dict[str, Any]) -> None:
    one = worker_of(pod(**status))
    assert (one.ready, one.started, one.ended_code, one.ran_s) == (False, False, None, None)


def test_a_node_says_whether_it_is_ready_and_what_it_lacks() -> None:
    gone = {"type": "Ready", "status": "Unknown", "message": "no word", "lastTransitionTime": LATE}
    full = {"type": "DiskPressure", "status": "True"}
    fine = {"type": "MemoryPressure", "status": "False"}
    assert node_facts(node(gone, full, fine)) == NodeFacts("node-1", False, "no word", LATE, ("DiskPressure",))
    assert node_facts(node()).ready, "of a node that says nothing nothing is known"


def test_heartbeats_do_not_make_a_node_another() -> None:
    def beat(at: str) -> NodeFacts:
        ready = {"type": "Ready", "status": "True", "message": "fine", "lastHeartbeatTime": at}
        return node_facts(node(ready | {"lastTransitionTime": EARLY}))

    assert beat(EARLY) == beat(LATE)


def test_a_node_s_gpu_faults_and_its_quarantine() -> None:
    quarantine = {
        "since_s": 1.0, "until_s": 2.0, "xid": 79, "gpu": "GPU-3", "strikes": 1, "cordoned": True, "over": False,
    }  # fmt: skip
    told = {ANNOTATION_FAULTS: '[[1.0,63,"GPU-3"]]', ANNOTATION_QUARANTINE: json.dumps(quarantine)}
    facts = node_facts(node(**told))
    assert facts.quarantine == "XID 79 of GPU GPU-3: reboot the node"
    assert facts.faults == ((1.0, "XID 63 of GPU GPU-3"),)
    over = told | {ANNOTATION_QUARANTINE: json.dumps(quarantine | {"over": True})}
    assert node_facts(node(**over)).quarantine is None
    assert node_facts(node(**{ANNOTATION_FAULTS: "nonsense", ANNOTATION_QUARANTINE: "nonsense"})).faults == ()


def test_pods_that_have_ended_are_no_workers() -> None:
    service = {
        "metadata": {"name": "chat", "namespace": "demo"},
        "spec": {"model": "m", "accelerator": {"cpu": {}}},
        "status": {"health": {"lastGood": "new"}},
    }
    view = view_of(service, [pod(phase="Running"), pod(phase="Failed"), pod(phase="Succeeded")], [node()])
    assert [one.name for one in view.workers] == ["chat-1"]
    assert view.health
    assert view.health.last_good == "new"
    assert set(view.nodes) == {"node-1"}
