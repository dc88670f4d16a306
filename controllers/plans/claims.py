"""What an InferenceService claims of its Tenant's quota, read from the object. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controllers.plans.mig.chosen import spec_of
from controllers.plans.snapshot import Claim
from controllers.plans.tenancy import Demand, demand_of
from crds.inference_service import InferenceServiceSpec


def claim_of(service: Mapping[str, Any]) -> Claim:
    """What another service wants and has. One that is being deleted wants nothing more."""
    meta, status = service["metadata"], service.get("status") or {}
    spec = spec_of(service)
    desired = status.get("desiredReplicas")
    wanted = demand_of(spec, desired)
    held = _demand_at(spec, min(desired or 0, wanted.replicas))
    if meta.get("deletionTimestamp"):
        wanted = held = _demand_at(spec, status.get("replicas") or 0)
        return Claim(meta["namespace"], meta["name"], meta.get("creationTimestamp", ""), wanted, held)
    # Where the load decides, what is desired is bounded by the quota: what is wished is the policy's own word.
    advised = (status.get("scaling") or {}).get("advisedReplicas")
    wished = None if advised is None else demand_of(spec, advised)
    return Claim(meta["namespace"], meta["name"], meta.get("creationTimestamp", ""), wanted, held, wished)


def asks_of(service: Mapping[str, Any]) -> tuple[Any, ...]:
    """Equal as long as the claim is, and cheap: most changes of a service leave it as it was."""
    meta, status = service["metadata"], service.get("status") or {}
    fields = ("desiredReplicas", "replicas", "slice")
    advised = (status.get("scaling") or {}).get("advisedReplicas")
    return meta.get("generation"), meta.get("deletionTimestamp"), advised, *map(status.get, fields)


def _demand_at(spec: InferenceServiceSpec, replicas: int) -> Demand:
    return demand_of(spec.model_copy(update={"replicas": replicas, "scaling": None}), None)
