"""Puts this controller together: caches, reconciler, and who wakes a Model. Starts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controllers.apply import Applier
from controllers.model.reconciler import Measured, ModelReconciler
from controllers.plans.model import Node
from controllers.plans.model_manifests import Agents
from controllers.runtime.interface import Marker
from controllers.settings import Settings
from controllers.wakes import of_claim, of_node, of_volume, wake
from crds.contract import LABEL_MANAGED_BY, MANAGED_BY
from kube.api import Api
from kube.events import Recorder
from kube.informer import Informer, lean
from kube.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, Object


@dataclass(frozen=True, slots=True)
class Wired:
    """What the runtime runs of this controller."""

    reconciler: ModelReconciler
    caches: tuple[Informer[Any], ...]


def wire_model(
    client: Api,
    settings: Settings,
    queue: Marker,
    recorder: Recorder,
    applier: Applier,
    *,
    services: Informer[Object],
    models: Informer[Object],
    measured: Measured,
) -> Wired:
    """Everything connected. `models` has the index `by_namespace`."""
    nodes = Informer(client, NODES, keep=Node.of)
    volumes = Informer(client, PERSISTENT_VOLUMES, keep=lean, label_selector=f"{LABEL_MANAGED_BY}={MANAGED_BY}")
    # Not only ours: a pvc:// source is a claim of the user's.
    claims = Informer(client, PERSISTENT_VOLUME_CLAIMS, keep=lean)
    wake(nodes, queue, of_node(models))
    wake(volumes, queue, of_volume)
    wake(claims, queue, of_claim(models))
    agents = Agents(settings.model_cache.path, settings.model_cache.node_selector)
    reconciler = ModelReconciler(client, models, services, nodes, volumes, claims, agents, applier, recorder, measured)
    return Wired(reconciler, (nodes, volumes, claims))
