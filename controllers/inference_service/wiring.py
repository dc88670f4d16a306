"""Puts this controller together: caches, boards, writer, reconciler, and who wakes it. Starts nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from controllers.apply import Applier
from controllers.history.interface import HistorySource
from controllers.inference_service.admin_ports import AdminPorts
from controllers.inference_service.budgets import BudgetBoard
from controllers.inference_service.caches import Caches, gateway_addresses
from controllers.inference_service.canaries import CanaryBoard
from controllers.inference_service.demand import DemandBoard
from controllers.inference_service.foresight import Foresight
from controllers.inference_service.healings import Healings
from controllers.inference_service.loads import LoadBoard
from controllers.inference_service.metrics import ServiceMetrics
from controllers.inference_service.objections import ObjectionBoard
from controllers.inference_service.probes import ProbeBoard
from controllers.inference_service.profiles import ProfileBoard
from controllers.inference_service.quality import Memory, NoMemory, QualityBoard
from controllers.inference_service.reconciler import InferenceServiceReconciler
from controllers.inference_service.wake import wake_services
from controllers.inference_service.write import Writer
from controllers.plans.alerting.wishes import NOTHING, Wishes
from controllers.plans.children import Surroundings
from controllers.plans.gateway_api import Parent, Routes
from controllers.plans.quality import Policy
from controllers.plans.service import PlanSettings
from controllers.plans.worker_pod import WorkerImages
from controllers.runtime.interface import Background, Key, Marker
from controllers.settings import Settings
from kube.api import Api
from kube.events import Recorder
from kube.informer import Change
from kube.resources import Object


@dataclass(frozen=True, slots=True)
class Wired:
    """What the runtime runs of this controller."""

    reconciler: InferenceServiceReconciler
    background: tuple[Background, ...]
    loads: LoadBoard
    profiles: ProfileBoard
    metrics: ServiceMetrics
    healings: Healings


def wire_inference_service(
    client: Api,
    settings: Settings,
    queue: Marker,
    recorder: Recorder,
    applier: Applier,
    caches: Caches,
    ports: AdminPorts,
    foresight: Foresight,
    past: HistorySource | None = None,
    *,
    memory: Memory | None = None,
    alert_wishes: Callable[[Key], Wishes | None] = lambda key: NOTHING,
    clock: Callable[[], float] = time.monotonic,
) -> Wired:
    """Everything connected."""
    probes, loads = ProbeBoard(ports, queue, clock), LoadBoard(ports, queue, clock)
    profiles = ProfileBoard(ports, queue, clock, lambda: datetime.now(UTC))
    canaries = CanaryBoard(ports, queue, lambda: gateway_addresses(caches))
    budgets = BudgetBoard(past, caches.slas, queue)
    qualities = QualityBoard(ports, queue, memory or NoMemory(), quality_policy(settings), clock=clock)
    demands = DemandBoard(ports, queue, lambda: gateway_addresses(caches))
    objections = ObjectionBoard(ports, queue, lambda: gateway_addresses(caches), clock)
    healings = Healings()
    writer = Writer(client, applier, caches, loads, clock)
    reconciler = InferenceServiceReconciler(
        caches,
        writer,
        probes,
        loads,
        demands,
        foresight,
        profiles,
        canaries,
        budgets,
        qualities,
        alert_wishes,
        objections,
        healings,
        recorder,
        plan_settings(settings),
    )
    wake_services(caches, queue, lambda: reconciler.over_quota)
    caches.models.on_change(lambda change: _forget_profiles(profiles, change))
    background = (
        Background("the probes", probes.run),
        Background("the scrapes of loads", loads.run),
        Background("the looks at what waits", demands.run),
        Background("the measurements of workers", profiles.run),
        Background("the counts of revisions", canaries.run),
        Background("the prompts of new revisions", canaries.run_prompts),
        Background("the error budgets", budgets.run),
        Background("the quality of answers", qualities.run),
        Background("what gateways hold against workers", objections.run),
    )
    metrics = ServiceMetrics(caches.services, budgets, qualities)
    return Wired(reconciler, background, loads, profiles, metrics, healings)


def _forget_profiles(profiles: ProfileBoard, change: Change[Object]) -> None:
    if change.old is not None and change.new is None:
        profiles.forget(change.old["metadata"]["uid"])


def plan_settings(settings: Settings) -> PlanSettings:
    """The part of the administrator's choices that plans read."""
    images = settings.images
    return PlanSettings(
        images=WorkerImages(images.worker_cpu, images.worker_gpu, images.pull_policy),
        around=Surroundings(
            settings.namespace,
            settings.monitoring_namespace,
            routes(settings),
            tuple(dict.fromkeys(images.pull_secrets)),
        ),
        url=settings.gateway_url,
        roll_releases=settings.roll_releases,
    )


def quality_policy(settings: Settings) -> Policy:
    """When a window of answers is complete, and how many make a baseline."""
    chosen = settings.quality
    return Policy(chosen.window_s, chosen.least_answers, chosen.baseline_windows)


def routes(settings: Settings) -> Routes | None:
    """None: the administrator named no Gateway."""
    chosen = settings.gateway_api
    if not chosen.parents:
        return None
    parents = tuple(Parent(one.name, one.namespace, one.section) for one in chosen.parents)
    return Routes(parents, f"{chosen.picker_service}.{settings.namespace}.svc.cluster.local")
