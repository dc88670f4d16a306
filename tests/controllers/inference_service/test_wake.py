"""Whom a change of one InferenceService wakes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from controllers.inference_service.caches import Caches
from controllers.inference_service.wake import _Waker
from controllers.runtime.interface import Key
from kube.store import Change, ChangeKind

WAITING = Key("InferenceService", "demo", "over-quota")


def service(**changed: Any) -> dict[str, Any]:
    meta = {"namespace": "demo", "name": "chat", "generation": 1, "annotations": {}} | changed.pop("metadata", {})
    status = {"desiredReplicas": 2, "replicas": 2, "readyReplicas": 2} | changed.pop("status", {})
    return {"metadata": meta, "spec": {"model": "m", "accelerator": {"cpu": {}}}, "status": status}


@pytest.mark.parametrize(
    ("changed", "is_woken"),
    [
        ({"metadata": {"annotations": {"seen": "now"}}}, False),
        ({"status": {"readyReplicas": 1}}, False),
        ({"metadata": {"generation": 2}}, True),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, True),
        ({"status": {"desiredReplicas": 1}}, True),
        ({"status": {"replicas": 1}}, True),
        ({"status": {"scaling": {"advisedReplicas": 1}}}, True),
    ],
)
def test_services_over_their_quota_are_woken_by_what_changes_a_claim_and_by_nothing_else(
    changed: dict[str, Any], is_woken: bool
) -> None:
    woken: list[Key] = []
    caches = cast(Caches, SimpleNamespace(services=SimpleNamespace(by=lambda *_: [])))
    queue = cast(Any, SimpleNamespace(add=woken.append))
    change = Change(ChangeKind.MODIFIED, "demo", "chat", service(), service(**changed))
    _Waker(caches, queue, lambda: [WAITING]).sibling(change)
    assert (WAITING in woken) is is_woken
