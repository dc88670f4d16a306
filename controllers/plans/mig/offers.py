"""Which MIG profiles the GPUs of pools offer to a service: its nodes' families, and what their pool allows. Pure.

A node counts in one pool, the first by name whose selector it matches; as in `controllers.gpu_pool`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from controllers.plans.mig.geometry import MEDIA, Family, Profile
from controllers.plans.mig.records import NodeView
from crds.gpu_pool import GPUPoolSpec


@dataclass(frozen=True, slots=True)
class Offer:
    """GPUs of one family in a pool, and what may be cut from them."""

    family: Family
    allowed: frozenset[str] | None
    """None: every profile without media engines."""

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """As the pool's planner would cut them."""
        names = self.allowed
        return tuple(one for one in self.family.profiles if (not one.media if names is None else one.name in names))


@dataclass(frozen=True, slots=True)
class GpuNode:
    """What of a node decides which profiles it offers."""

    labels: Mapping[str, str]
    family: Family

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> GpuNode | None:
        """From the object; None for a node whose GPUs cannot be cut."""
        view = NodeView.of(node)
        return None if view is None or view.family is None else cls(view.labels, view.family)


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether all of the selector's labels are there."""
    return all(labels.get(key) == value for key, value in selector.items())


def allowed_by(pool: GPUPoolSpec) -> frozenset[str] | None:
    """Profiles as the geometry names them; None where the pool does not say."""
    return None if pool.profiles is None else frozenset(one.replace(".me", MEDIA) for one in pool.profiles)


def pool_specs(pools: Iterable[Mapping[str, Any]]) -> dict[str, GPUPoolSpec]:
    """By name. A pool that was stored under another release's rules has none; its own status says so."""
    found = {}
    for one in pools:
        with suppress(ValidationError):
            found[str(one["metadata"]["name"])] = GPUPoolSpec.model_validate(one["spec"])
    return found


def offers_of(
    pools: Mapping[str, GPUPoolSpec], nodes: Iterable[GpuNode], selector: Mapping[str, str]
) -> tuple[Offer, ...]:
    """Of the pools' nodes that `selector` matches, each once, in an order that does not depend on that of the nodes."""
    found = set()
    for node in nodes:
        pool = next((pools[name] for name in sorted(pools) if matches(pools[name].node_selector, node.labels)), None)
        if pool is not None and matches(selector, node.labels):
            found.add(Offer(node.family, allowed_by(pool)))
    return tuple(sorted(found, key=lambda one: (one.family.name, sorted(one.allowed or ()))))
