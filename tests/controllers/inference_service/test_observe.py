"""From objects as the API server has them to what plans read."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.inference_service.caches import pod_entry, ready_addresses
from controllers.inference_service.observe import model_view, revision_view
from controllers.plans.claims import claim_of
from tests.controllers.inference_service.harness import READY_MODEL, gateway_slice, inference_service, model


def pod(**status: Any) -> dict[str, Any]:
    labels = {"foretide.dev/inference-service": "chat", "foretide.dev/revision": "r"}
    return {
        "metadata": {"name": "p", "namespace": "demo", "labels": labels},
        "spec": {"nodeName": "node-1"},
        "status": status,
    }


def test_a_ready_pod() -> None:
    entry = pod_entry(pod(podIP="10.1.0.1", conditions=[{"type": "Ready", "status": "True"}]))
    assert entry
    assert (entry.namespace, entry.service) == ("demo", "chat")
    assert (entry.worker.revision, entry.worker.ready, entry.worker.ip, entry.worker.node) == (
        "r",
        True,
        "10.1.0.1",
        "node-1",
    )


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_pod_that_has_ended_is_no_worker(phase: str) -> None:
    assert pod_entry(pod(phase=phase)) is None


def test_a_pod_before_its_first_status_is_a_worker_that_is_not_ready() -> None:
    entry = pod_entry({"metadata": pod()["metadata"]})
    assert entry
    assert not entry.worker.ready


def test_why_a_pod_is_not_scheduled_and_why_it_crashes() -> None:
    waiting = pod_entry(
        pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}])
    )
    assert waiting
    assert waiting.worker.unschedulable == "0/1 nodes"
    crashed = pod_entry(
        pod(
            containerStatuses=[
                {
                    "restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                    "lastState": {"terminated": {"exitCode": 1, "message": "cut off"}},
                }
            ]
        )
    )
    assert crashed
    worker = crashed.worker
    assert (worker.waiting_reason, worker.ended_code, worker.ended_message, worker.restarts) == (
        "CrashLoopBackOff",
        1,
        "cut off",
        3,
    )


def test_a_deletion_cost_that_is_no_number_is_zero() -> None:
    odd = pod()
    odd["metadata"]["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": "much"}
    entry = pod_entry(odd)
    assert entry
    assert entry.worker.deletion_cost == 0


def test_only_gateways_that_are_ready_are_probed() -> None:
    assert ready_addresses(gateway_slice()) == {"10.9.0.1", "10.9.0.2"}


def test_a_model_is_ready_by_its_condition_and_its_digest_is_the_verified_one() -> None:
    fresh = model("demo")
    assert not model_view(fresh).ready
    assert model_view(fresh).reason == "Pending"
    del fresh["spec"]["digest"]
    view = model_view(fresh | {"status": READY_MODEL | {"digest": "sha256:2"}})
    assert view.ready
    assert view.digest == "sha256:2"
    assert view.volume.claim_name == "m-model"


def test_a_model_that_is_being_deleted_starts_no_worker() -> None:
    going = model("demo") | {"status": READY_MODEL}
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not model_view(going).ready


def test_a_deployment_is_settled_when_kubernetes_has_seen_its_generation() -> None:
    deployment: dict[str, Any] = {
        "metadata": {"name": "chat-r", "generation": 2, "labels": {"foretide.dev/revision": "r"}},
        "spec": {"replicas": 0},
        "status": {"observedGeneration": 1},
    }
    assert not revision_view(deployment).settled
    deployment["status"]["observedGeneration"] = 2
    assert revision_view(deployment).settled
    assert revision_view(deployment).replicas == 0
    assert not revision_view(deployment, settled=False).settled


def test_a_service_that_is_being_deleted_claims_only_what_it_still_has() -> None:
    going = inference_service("demo", replicas=5) | {"status": {"desiredReplicas": 5, "replicas": 2}}
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert claim_of(going).wanted.replicas == 2
    del going["metadata"]["deletionTimestamp"]
    assert claim_of(going).wanted.replicas == 5
