"""Scaling ahead of a load, to zero and back, and without a history for a while."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from e2e.cluster import layout
from e2e.cluster.cluster import Cluster
from e2e.install import SYSTEM, install
from e2e.prometheus import StandInPrometheus, daily_rise
from e2e.scenarios.world import World, until
from e2e.target import Target
from forecasting.policy import from_json, plan

Measured = Callable[[str, str], None]

RISE_IN_S = 13 * 60.0
"""Far enough that nothing is seen of it at first: the policy looks ten minutes ahead."""
LIMITS = {"min": 1, "max": 3, "tokensPerSecond": 10, "targetConcurrency": 8}


@pytest.fixture(scope="module")
def rise_at_s() -> float:
    return time.time() + RISE_IN_S


@pytest.fixture(scope="module")
def prometheus(
    target: Target, own_cluster: Cluster | None, world: World, rise_at_s: float
) -> Iterator[StandInPrometheus]:
    """Foretide with a history from outside: the same steep rise at the same time of every day."""
    if own_cluster is None:
        pytest.skip("pods of this cluster do not reach this machine")
    with StandInPrometheus(layout.HOST_ADDRESS, daily_rise(rise_at_s, low=4.0, high=25.0)) as it:
        forecasting = {"stepSeconds": 60, "refreshSeconds": 10, "historyDays": 3}
        install(world.kubectl, target.chart_values | {"history": {"prometheusUrl": it.url}, "forecasting": forecasting})
        yield it
    install(world.kubectl, target.chart_values)


def desired(world: World, service: str) -> int:
    return int(world.status(service).get("desiredReplicas") or 0)


def trust(world: World, service: str) -> str:
    condition = world.condition(f"inferenceservice/{service}", "ForecastTrusted")
    return f"{condition.get('status')} {condition.get('reason')}"


def recorded(world: World, service: str) -> list[Any]:
    """Decisions as the leader recorded them."""
    path = f"/api/v1/namespaces/{SYSTEM}/pods/{world.leader()}:8082/proxy/decisions/demo/{service}"
    return [from_json(line) for line in world.kubectl("get", "--raw", path).splitlines()]


def test_a_predictive_service_has_its_workers_before_the_load_and_a_reactive_one_does_not(
    world: World, prometheus: StandInPrometheus, rise_at_s: float, measured: Measured
) -> None:
    with (
        world.serving("ahead", scaling={**LIMITS, "policy": "predictive"}),
        world.serving("behind", scaling={**LIMITS, "policy": "reactive"}),
    ):
        until(lambda: trust(world, "ahead") == "True Calibrated", "a forecast", 120)
        before = desired(world, "ahead")
        until(lambda: desired(world, "ahead") == 3, "three workers wanted", rise_at_s - time.time())
        measured("the forecast called for 3 workers before the rise", f"{rise_at_s - time.time():.0f} s")
        world.rolled("ahead", 3)
        lead_s = rise_at_s - time.time()
        measured(f"{before} → 3 workers ready before the rise", f"{lead_s:.0f} s")
        assert lead_s > 0
        assert desired(world, "behind") == 1
        _the_forecast_is_shown(world)
        _the_history_may_be_away(world, prometheus)
        _decisions_can_be_replayed(world)
        _another_autoscaler_is_told_of(world)
        _the_load_comes(world, measured)


def _the_forecast_is_shown(world: World) -> None:
    forecast = world.get("capacityforecast/ahead") or {}
    status = forecast["status"]
    assert status["source"] == "Prometheus"
    assert status["peak"].startswith("3 ")
    assert {one["ahead"] for one in status["horizons"]} >= {"5m", "10m"}
    assert forecast["metadata"]["ownerReferences"][0]["name"] == "ahead"
    shown = world.kubectl("-n", "demo", "get", "cfc").splitlines()[0].split()
    assert shown[:5] == ["NAME", "LOAD", "REPLICAS", "PLANNED", "PEAK"]


def _the_history_may_be_away(world: World, prometheus: StandInPrometheus) -> None:
    """The last forecast holds, and the condition says what is missing until it is back."""
    prometheus.stop()
    until(lambda: trust(world, "ahead") == "True HistoryUnavailable", "the missing history is told", 60)
    assert desired(world, "ahead") == 3
    prometheus.start()
    until(lambda: trust(world, "ahead") == "True Calibrated", "the history is back", 90)
    assert desired(world, "ahead") == 3


def _decisions_can_be_replayed(world: World) -> None:
    decisions = recorded(world, "ahead")
    assert any(one.replicas == 3 and one.reason.value == "Forecast" for one in decisions)
    assert all(plan(one.inputs) == one for one in decisions)
    assert not any(one.replicas > 1 for one in recorded(world, "behind"))
    events = world.kubectl("-n", "demo", "get", "events.events.k8s.io", "-o", "json")
    notes = {item["reason"] for item in json.loads(events)["items"] if item["regarding"]["name"] == "ahead"}
    assert "ScaledUp" in notes


def _another_autoscaler_is_told_of(world: World) -> None:
    """Two that set one number would fight for it."""
    target = {"apiVersion": "foretide.dev/v1alpha1", "kind": "InferenceService", "name": "behind"}
    metric = {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "1"}}
    hpa = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "behind", "namespace": "demo"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 3, "metrics": [{"type": "Pods", "pods": metric}]},
    }

    def held() -> str | None:
        reason: str | None = world.condition("inferenceservice/behind", "ScalingHeld").get("reason")
        return reason

    world.kubectl.apply(hpa)
    until(lambda: held() == "OtherAutoscaler", "the other autoscaler is told of", 20)
    world.kubectl("-n", "demo", "delete", "hpa", "behind")
    until(lambda: held() is None, "ours goes on", 20)


def _the_load_comes(world: World, measured: Measured) -> None:
    """Really sent, and the same to both: one has its workers already, the other asks for its own only now."""
    assert (desired(world, "ahead"), desired(world, "behind")) == (3, 1)
    clients, started = LIMITS["targetConcurrency"] + 4, time.monotonic()
    with world.load("ahead", clients=clients) as served, world.load("behind", clients=clients) as late:
        until(lambda: desired(world, "behind") > 1, "the reactive service follows its load", 90)
        measured("load → a reactive service wants more workers", f"{time.monotonic() - started:.0f} s")
        until(lambda: served.answered and late.answered, "answers of both", 90)
        assert desired(world, "ahead") == 3
    measured("the load on 3 workers that were there", str(served.account()))
    measured("the same load on 1 worker and those on their way", str(late.account()))


def test_a_service_sleeps_and_its_first_request_wakes_it(world: World, measured: Measured) -> None:
    sleepy = {"min": 0, "max": 2, "idlePeriod": "5s", "scaleDownDelay": "5s"}
    with world.serving("sleepy", scaling=sleepy):
        until(lambda: not world.pods("sleepy") and desired(world, "sleepy") == 0, "no worker is left", 90)
        started = time.monotonic()
        with ThreadPoolExecutor(1) as client:
            answer = client.submit(world.ask, "sleepy")
            until(lambda: desired(world, "sleepy") == 1, "a worker is wanted", 30, every_s=0.05)
            measured("request to a sleeping service → a worker is wanted", f"{time.monotonic() - started:.1f} s")
            assert answer.result()
        measured("request to a sleeping service → its answer", f"{time.monotonic() - started:.1f} s")
        last = world.status("sleepy")["scaling"]["lastDecision"]
        assert (last["before"], last["after"]) == (0, 1)
        until(lambda: not world.pods("sleepy"), "it sleeps again", 90)
