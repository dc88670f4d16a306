"""What an onlooker makes of two looks at the same thing."""

from __future__ import annotations

from dataclasses import replace

from crds.contract import ANNOTATION_QUARANTINE, LABEL_REVISION, LABEL_SERVICE
from e2e.chaos.signs import (
    By,
    GatewayLook,
    ModelLook,
    NodeLook,
    PodLook,
    Sign,
    first,
    gateway_looks,
    gateway_signs,
    model_look,
    model_signs,
    node_look,
    node_signs,
    pod_look,
    pod_signs,
    service_look,
    service_signs,
)

POD = PodLook("anna-1", "u1", "anna", "r1", "node-1", True, False, "", 0, "c1")
PAGE = """\
# HELP foretide_gateway_endpoints Endpoints by state.
foretide_gateway_endpoints{namespace="chaos",service="anna",state="ready"} 1.0
foretide_gateway_endpoints{namespace="chaos",service="anna",state="lost"} 1.0
foretide_gateway_endpoints{namespace="demo",service="anna",state="ready"} 5.0
foretide_gateway_losses_total{namespace="chaos",service="anna",evidence="silent"} 2.0
foretide_gateway_losses_total{namespace="chaos",service="anna",evidence="refused"} 1.0
foretide_gateway_ejections_total{namespace="chaos",service="anna"} 4.0
foretide_gateway_waiting{namespace="chaos",service="anna"} 9.0
process_resident_memory_bytes 1e8
"""


def said(signs: list[Sign]) -> list[tuple[str, bool]]:
    return [(one.what, one.action) for one in signs]


def test_a_pod_is_read_with_its_container_and_a_pod_of_no_service_is_not() -> None:
    labels = {LABEL_SERVICE: "anna", LABEL_REVISION: "r1"}
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"restartCount": 2, "containerID": "containerd://abc"}],
    }
    obj = {
        "metadata": {"name": "anna-1", "uid": "u1", "labels": labels},
        "spec": {"nodeName": "node-1"},
        "status": status,
    }
    assert pod_look(obj) == replace(POD, restarts=2, container="abc")
    obj["metadata"]["labels"] = {}  # type: ignore[index]
    assert pod_look(obj) is None


def test_what_happens_to_a_pod_is_an_action_and_what_becomes_of_it_is_not() -> None:
    assert said(pod_signs(1.0, None, POD)) == [("made", True)]
    assert said(pod_signs(1.0, POD, replace(POD, restarts=1))) == [("restarted, 1 so far", True)]
    assert said(pod_signs(1.0, POD, replace(POD, ready=False))) == [("not ready", False)]
    assert said(pod_signs(1.0, POD, replace(POD, leaving=True))) == [("leaves", True)]
    assert said(pod_signs(1.0, POD, replace(POD, failed="Evicted"))) == [("failed: Evicted", True)]
    assert said(pod_signs(1.0, POD, None)) == [("gone", True)]
    assert said(pod_signs(1.0, replace(POD, leaving=True), None)) == []
    evicted = replace(POD, ready=False, failed="Evicted")
    assert said(pod_signs(1.0, evicted, replace(evicted, leaving=True))) == [], "a drain clears it away"
    assert said(pod_signs(1.0, POD, replace(POD, container="c2"))) == []


def _service(phase: str = "Stable", desired: int = 2, reason: str = "Ready", **more: object) -> dict[str, object]:
    conditions = [{"type": "Ready", "status": "True", "reason": reason}]
    status = {
        "desiredReplicas": desired,
        "conditions": conditions,
        "rollout": {"phase": phase},
        "observedGeneration": 3,
    }
    return {"metadata": {"name": "anna", "generation": 3}, "status": status | more}


def test_a_condition_is_a_sign_and_a_rollout_or_a_number_that_moves_an_action() -> None:
    old = service_look(_service())
    assert said(service_signs(1.0, old, service_look(_service(reason="Degraded")))) == [("Ready True Degraded", False)]
    assert said(service_signs(1.0, old, service_look(_service(phase="RolledBack")))) == [("rollout RolledBack", True)]
    assert said(service_signs(1.0, old, service_look(_service(desired=3)))) == [("2 → 3 workers wanted", True)]
    assert service_signs(1.0, old, service_look(_service())) == []
    assert service_signs(1.0, None, old) == []


def test_a_remedy_that_the_status_shows_is_an_action_once() -> None:
    action = {"time": "12:00", "remedy": "RestartWorker", "cause": "Hung", "worker": "anna-1"}
    health = {"findings": [{"cause": "Hung"}], "actions": [action]}
    old, new = service_look(_service()), service_look(_service(health=health))
    signs = service_signs(1.0, old, new)
    assert said(signs) == [("finding Hung", False), ("remedy RestartWorker Hung 12:00", True)]
    assert signs[-1].pod == "anna-1"
    later = service_look(_service(health=health | {"findings": [], "actions": [action | {"outcome": "Helped"}]}))
    assert service_signs(1.0, new, later) == []


def test_a_rollout_that_ended_is_told_with_its_reason() -> None:
    rollout = {"phase": "Stable", "history": [{"revision": "r2", "outcome": "RolledBack", "reason": "OutputsDiffer"}]}
    signs = service_signs(1.0, service_look(_service()), service_look(_service(rollout=rollout)))
    assert said(signs) == [("rollout ended: r2 RolledBack OutputsDiffer", False)]


def test_a_node_says_when_it_is_quarantined() -> None:
    obj = {
        "metadata": {"name": "node-1", "annotations": {ANNOTATION_QUARANTINE: "{}"}},
        "spec": {"unschedulable": True},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    new = node_look(obj)
    assert new == NodeLook("node-1", ready=True, cordoned=True, quarantined=True)
    signs = node_signs(1.0, replace(new, cordoned=False, quarantined=False), new)
    assert said(signs) == [("node-1 cordoned", False), ("node-1 quarantined", False)]


def test_a_model_that_stalls_is_told_once() -> None:
    obj = {"metadata": {"name": "m"}, "status": {"conditions": [{"type": "Stalled", "status": "True"}]}}
    new = model_look(obj)
    assert said(model_signs(1.0, ModelLook("m", False), new)) == [("Model m Stalled", False)]
    assert model_signs(1.0, new, new) == []


def test_a_gateways_page_is_read_for_one_namespace() -> None:
    assert gateway_looks(PAGE, "chaos") == {"anna": GatewayLook({"ready": 1, "lost": 1}, 3.0, 4.0)}
    assert gateway_looks("", "chaos") == {}


def test_a_worker_that_a_gateway_leaves_out_is_an_action_and_its_return_no_sign() -> None:
    old, new = GatewayLook({"ready": 2}, 3.0, 4.0), GatewayLook({"ready": 1, "lost": 1}, 4.0, 4.0)
    assert said(gateway_signs(1.0, "anna", old, new)) == [("a worker is lost", True), ("1 lost", False)]
    assert gateway_signs(1.0, "anna", new, replace(old, losses=4.0)) == []
    assert gateway_signs(1.0, "anna", None, new) == []


def test_the_first_sign_is_the_earliest_after_the_fault() -> None:
    signs = [Sign(at_s, By.POD, "anna", str(at_s)) for at_s in (3.0, 1.0, 2.0)]
    assert first(signs, 1.5) == signs[2]
    assert first(signs, 4.0) is None
