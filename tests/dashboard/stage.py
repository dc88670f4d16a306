"""The dashboard's real server with a fleet, a past and decisions of our own making, for a browser to look at."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web

from controllers.dashboard.access import Access
from controllers.dashboard.caches import Caches
from controllers.dashboard.server import DashboardServer
from controllers.history.interface import Counts, HistoryUnavailable, ServiceId
from dashboard.build import DIST
from forecasting.policy.decide import plan
from forecasting.policy.record import to_json
from forecasting.policy.values import Bounds, Capacity, Load, LoadForecast, Memory, PolicySettings, ScalingInput
from kube.informer import Informer, lean
from kube.resources import (
    ALERT_POLICIES,
    CAPACITY_FORECASTS,
    GPU_POOLS,
    INFERENCE_SERVICES,
    SLAS,
    TENANTS,
    Object,
    Resource,
)
from tests.fakes import FakeClient
from tests.waiting import eventually

NOW_S = 1_795_000_000.0
DAY_S = 86_400.0
LEVELS = (0.1, 0.5, 0.8, 0.95, 0.99)


def load_at(at_s: float) -> float:
    """Tokens each second: a day with a high noon."""
    return 400.0 + 300.0 * math.sin(2 * math.pi * (at_s % DAY_S) / DAY_S)


def service(namespace: str, name: str, at: int = 0, *, servable: str = "True") -> Object:
    message = "A probe was answered through every gateway." if servable == "True" else "No worker is ready."
    conditions = [
        {
            "type": kind,
            "status": servable,
            "reason": "Probed",
            "message": message,
            "lastTransitionTime": "2026-11-01T00:00:00Z",
        }
        for kind in ("Ready", "Servable")
    ]
    workers = at % 7 + 1
    numbers = {"replicas": workers, "readyReplicas": workers, "desiredReplicas": workers}
    scaling = {"min": 1, "max": 9, "policy": "predictive"}
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"model": "smollm2", "sla": "fast", "scaling": scaling},
        "status": {"conditions": conditions, "tenant": "acme", **numbers},
    }


def forecast() -> Object:
    conditions = [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Calibrated",
            "message": "The 95 % interval held 95.1 % of 2016 loads.",
        }
    ]
    coverage = [{"level": "95%", "achieved": "95.1%", "samples": 2016}]
    cost = {
        "reserved": 2,
        "onDemand": 1,
        "spot": 1,
        "perHour": "2.95",
        "message": "2 reserved carry the base, 1 spot the noon.",
    }
    history = {"history": "14d in steps of 10m, 0.3 % missing", "forecaster": "ensemble", "source": "Store"}
    numbers = {"load": "412.4", "plannedReplicas": 7, "leadTime": "5m"}
    status = {"conditions": conditions, "coverage": coverage, "cost": cost, **history, **numbers}
    return {"metadata": {"namespace": "demo", "name": "chat"}, "spec": {"service": "chat"}, "status": status}


def tenants() -> list[Object]:
    return [{"metadata": {"name": "acme"}, "spec": {"namespaces": ["demo"], "quota": {"replicas": 12}}}]


def pool() -> Object:
    nodes = [
        {"name": "gpu-1", "layout": "7×1g.10gb", "state": "Ready"},
        {"name": "gpu-2", "layout": "2×3g.40gb", "state": "Moving", "target": "7×1g.10gb", "message": "Workers move."},
    ]
    ready = {"type": "Ready", "status": "False", "reason": "Repartitioning", "message": "Being cut anew: 'gpu-2'."}
    met = {"type": "DemandMet", "status": "True", "reason": "AllServed", "message": "All 9 workers have a slice."}
    slices = [{"profile": "1g.10gb", "slices": 14, "used": 5, "wanted": 9}]
    words = {"layout": "14×1g.10gb", "served": "9/9", "fragmentation": "0%", "reason": "9 of 9 workers get a slice."}
    status = {"gpus": 2, **words, "profiles": slices, "nodes": nodes, "conditions": [ready, met]}
    spec = {"nodeSelector": {"pool": "h100"}, "capacityClass": "spot", "pricePerGpuHour": "1.2"}
    return {"metadata": {"name": "h100"}, "spec": spec, "status": status}


def ill(name: str) -> Object:
    """One whose newest revision answers wrongly while a worker is slow, as the operator writes it."""
    at, shown = "2026-11-01T00:00:00Z", service("demo", name, 3)
    for type_, reason in (("Degraded", "WorkerSlow"), ("QualityDrift", "Repetition")):
        mark = {"type": type_, "status": "True", "reason": reason, "message": "One of 4 workers is slow."}
        shown["status"]["conditions"].append(mark | {"lastTransitionTime": at})
    finding = {
        "cause": "WorkerSlow", "errorClass": "System", "since": at, "workers": ["chat-x2"], "affected": 1,
        "evidence": "chat-x2: latency 0.410 s, 10.8 × the 0.038 s elsewhere.",
        "next": "It was tried lately; each further attempt waits longer.",
        "advice": "Compare its node with those of its siblings.",
        "effect": "A fresh worker is as fast as its siblings.",
    }  # fmt: skip
    slow = {"time": at, "cause": "WorkerSlow", "remedy": "RestartWorker", "worker": "chat-x1", "node": "node-2"}
    done = [slow | {"reason": "0.4 s > 3 × 0.04 s", "outcome": "NotHelped"}]
    done.append(slow | {"cause": "WorkerHangs", "reason": "No step for 9 s.", "outcome": "Helped"})
    ended = {"revision": "aa11", "before": "9f00", "outcome": "Promoted", "reason": "AllStepsPassed", "time": at}
    verdict = {"metric": "ttft", "verdict": "Worse", "message": "The new one is 22 % slower."}
    counts = {"stable": [1], "candidate": [1], "worse": [1], "noWorse": [1]}
    shown["spec"]["rollout"] = {"strategy": "canary", "steps": [{"weight": 5}, {"weight": 50}]}
    shown["status"]["health"] = {"findings": [finding], "actions": done}
    cause = {"cause": "RolloutUnderWay", "evidence": "bb22 at 50%.", "advice": "Compare both revisions."}
    asked = {"alert": "QueueGrows", "policy": "demo/shop", "since": at, "time": at}
    shown["status"]["diagnosis"] = asked | {"causes": [cause, cause | {"cause": "AtMaximum"}]}
    why = "alert 'QueueGrows' fires, and reaction 'stand-by' of AlertPolicy demo/shop asks for 6 while it does"
    floor = {"workers": 6, "until": "2026-11-01T00:30:00Z", "message": f"{why}, 30m at most."}
    shown["status"]["scaling"] = {"policy": "predictive", "floor": floor}
    shown["status"]["rollout"] = {
        "phase": "Analysing", "summary": "bb22, step 2 of 2", "stable": "aa11", "candidate": "bb22", "step": 1,
        "since": at, "message": "It waits for 120 requests more.", "verdicts": [verdict | counts],
        "history": [ended | {"message": "Two steps passed."}],
    }  # fmt: skip
    return shown


def on_call() -> Object:
    at = "2026-11-01T00:00:00Z"
    alert = {
        "fingerprint": "ab12", "rule": "budget", "subject": "service/demo/ill", "severity": "P0", "state": "firing",
        "since": at, "message": "2.1 % of requests fail.", "incident": "i1",
    }  # fmt: skip
    incident = {"id": "i1", "root": "node/node-2", "causes": ["node/node-2: 2 of 2 alerts are on it"]}
    meta = {"namespace": "demo", "name": "on-call"}
    return {"metadata": meta, "spec": {}, "status": {"alerts": [alert], "incidents": [incident]}}


def sla() -> Object:
    spec = {"priority": "P1", "targets": {"ttft": "500ms", "tpot": "50ms"}, "availability": "99%", "window": "1d"}
    return {"metadata": {"namespace": "demo", "name": "fast"}, "spec": spec}


@dataclass
class Memories:
    """A day of load, and a decision every ten minutes. `away` takes it from us."""

    away: bool = False
    lines: list[str] = field(default_factory=lambda: _decisions())

    async def counts(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        if self.away:
            raise HistoryUnavailable("Prometheus does not answer.")
        at = np.arange(start_s, end_s, step_s)
        tokens = np.array([load_at(one) * step_s for one in at])
        tokens[len(tokens) // 3 : len(tokens) // 3 + 4] = np.nan
        requests = np.where(np.isnan(tokens), np.nan, np.round(tokens / 1000))
        return Counts(start_s, step_s, requests, requests, tokens / 2, tokens / 2)

    async def decisions(self, service: ServiceId, since_s: float, most: int) -> list[str]:
        return self.lines if service.name == "chat" else []


def _decisions() -> list[str]:
    lines, current, memory = [], 5, Memory()
    for at_s in np.arange(NOW_S - DAY_S, NOW_S + 1, 600.0):
        rows = tuple(tuple(load_at(at_s + 600 * i) * (0.6 + level * 0.6) for level in LEVELS) for i in range(100))
        tokens = load_at(at_s) / 2
        asked = ScalingInput(
            float(at_s), Bounds(1, 9), current, current, Load(1.0, tokens, tokens, 4, 0, 0.2, 5.0),
            LoadForecast(float(at_s), 600.0, LEVELS, rows), Capacity(100.0, 64), 300.0, PolicySettings(), memory,
        )  # fmt: skip
        decision = plan(asked)
        lines.append(to_json(decision))
        current, memory = decision.replicas, decision.memory
    return lines


class Judge(FakeClient):
    """Accepts the token `let-me-in`."""

    async def create(self, resource: Resource, obj: Any) -> Object:
        known = obj["spec"].get("token") == "let-me-in"
        return {"status": {"authenticated": known, "allowed": True, "user": {"username": "ada"}}}


@contextlib.asynccontextmanager
async def stage(fleet: list[Object], *, anonymous: bool = True, past: Memories | None = None) -> AsyncIterator[str]:
    """The address of the page."""
    objects = [(INFERENCE_SERVICES, one) for one in fleet] + [(TENANTS, one) for one in tenants()]
    client = Judge(
        *objects, (SLAS, sla()), (CAPACITY_FORECASTS, forecast()), (GPU_POOLS, pool()), (ALERT_POLICIES, on_call())
    )
    kinds = (INFERENCE_SERVICES, CAPACITY_FORECASTS, SLAS, TENANTS, GPU_POOLS, ALERT_POLICIES)
    informers = [Informer(client, one, keep=lean) for one in kinds]
    caches = Caches(*informers)
    tasks = [asyncio.ensure_future(one.run()) for one in informers]
    server = DashboardServer(caches, past or Memories(), Access(client, anonymous=anonymous), DIST, clock=lambda: NOW_S)
    runner = web.AppRunner(server.app())
    try:
        await eventually(lambda: all(one.synced.is_set() for one in informers), "caches")
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
