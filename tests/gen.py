"""Builders of test values: every argument has a sensible default, so a test names only what it is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from controllers.plans.children import Surroundings
from controllers.plans.model_volume import model_volume
from controllers.plans.service import PlanSettings, ServicePlan, plan_service
from controllers.plans.snapshot import Claim, ModelView, Probe, Revision, Snapshot, Worker
from controllers.plans.tenancy import Demand, Tenant
from controllers.plans.worker_pod import WorkerImages, worker_template
from crds.contract import FINALIZER_SERVICE
from crds.inference_service import InferenceServiceSpec, InferenceServiceStatus
from crds.model import MeasuredProfile
from crds.tenant import TenantSpec
from forecasting.policy import Memory

EARLY = "2026-01-01T00:00:00Z"
IMAGES = WorkerImages(cpu="foretide/worker-cpu:dev", gpu=None, pull_policy="IfNotPresent")
SETTINGS = PlanSettings(IMAGES, Surroundings("foretide-system"), "http://foretide-gateway.foretide-system:8080/v1")
GATEWAYS = frozenset({"10.0.0.1", "10.0.0.2"})


def service_spec(**fields: Any) -> InferenceServiceSpec:
    """camelCase or snake_case fields over a CPU service of Model `m` with 1 worker."""
    return InferenceServiceSpec.model_validate({"model": "m", "accelerator": {"cpu": {}}} | fields)


def model_view(name: str = "m", **fields: Any) -> ModelView:
    source = fields.pop("source", "https://models.example/m.gguf")
    view: dict[str, Any] = {
        "name": name,
        "source": source,
        "digest": "sha256:" + "1" * 64,
        "volume": model_volume("demo", name, source),
        "ready": True,
        "reason": "Cached",
    }
    return ModelView(**view | fields)


def tenant(name: str = "acme", *, quota: Mapping[str, Any] | None = None, created: str = EARLY) -> Tenant:
    spec: dict[str, Any] = {"namespaces": ["demo"]} | ({"quota": quota} if quota else {})
    return Tenant(name, f"uid-{name}", created, 1, TenantSpec.model_validate(spec))


def snapshot(**fields: Any) -> Snapshot:
    """Service `chat` in `demo` with a ready Model, a Tenant and two gateways, before its first worker."""
    spec = fields.pop("spec", None) or service_spec()
    status = fields.pop("status", None) or {}
    values: dict[str, Any] = {
        "namespace": "demo",
        "name": "chat",
        "uid": "uid-chat",
        "generation": 1,
        "created": EARLY,
        "finalizers": (FINALIZER_SERVICE,),
        "spec": spec,
        "status": InferenceServiceStatus.model_validate(status),
        "model": model_view(),
        "model_names": ("m",),
        "tenant": tenant(),
        "gateways": GATEWAYS,
    }
    return Snapshot(**values | fields)


def target_of(seen: Snapshot) -> str:
    """The revision of the snapshot's spec."""
    assert seen.model
    return worker_template(seen, seen.model, IMAGES).revision


def workers(revision: str, ready: int, *, unready: int = 0, leaving: int = 0, first: int = 1) -> tuple[Worker, ...]:
    states = [(True, False)] * ready + [(False, False)] * unready + [(False, True)] * leaving
    return tuple(
        Worker(f"chat-{revision}-{number}", revision, is_ready, is_leaving, ip=f"10.1.0.{number}")
        for number, (is_ready, is_leaving) in enumerate(states, start=first)
    )


def with_workers(seen: Snapshot, *revisions: Revision, workers: Iterable[Worker]) -> Snapshot:
    return dataclasses.replace(seen, revisions=revisions, workers=tuple(workers))


def answered(seen: Snapshot, **fields: Any) -> Probe:
    """A probe that just came back through all gateways."""
    values: dict[str, Any] = {
        "ok": True,
        "reason": "ProbeAnswered",
        "message": "",
        "workers": seen.ready_workers,
        "gateways": seen.gateways,
        "age_s": 0.0,
    }
    return Probe(**values | fields)


def claim(name: str, *, wanted: int, held: int = 0, created: str = EARLY, gpus_each: int = 0) -> Claim:
    return Claim("demo", name, created, Demand(1, wanted, wanted * gpus_each), Demand(1, held, held * gpus_each))


def plan(seen: Snapshot, *, now_s: float = 1000.0, settings: PlanSettings = SETTINGS) -> ServicePlan:
    return plan_service(seen, settings, Memory(since_s=now_s), now_s)


def measured_profile(accelerator: str) -> MeasuredProfile:
    """What a large GPU measured of itself with a model of some eight billion weights."""
    return MeasuredProfile(
        accelerator=accelerator,
        measured="2026-11-26T10:00:00Z",
        alpha_us="7000",
        beta_us="15",
        gamma_us="0.039",
        delta_us="33",
        request_us="8000",
        kv_tokens=400_000,
        max_sequences=256,
        chunk_tokens=2048,
    )
