"""What stands between a service and its spec: one finding is one sentence with the next step.

The checks of what the spec refers to are here, in the order in which a person would look: Tenant, Model, SLA,
fallbacks, claims. A finding never takes anything away from workers that already run.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from controllers.plans.fallbacks import circle, missing_fallback
from controllers.plans.mig.claims import NO_API, TEMPLATE_KIND
from controllers.plans.snapshot import Snapshot
from crds.inference_service import Allocation
from crds.reading import explained


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the way. `reason` is for machines, `message` for people."""

    reason: str
    message: str
    blocks_start: bool = False
    """No new worker may start."""
    needs_person: bool = True
    """False when it ends by itself, such as a download."""


def referred(snapshot: Snapshot) -> list[Finding]:
    """Tenant, Model, SLA, fallbacks and claims, in this order; then what the API server would not take."""
    checks = (
        check_tenant(snapshot),
        check_model(snapshot),
        check_sla(snapshot),
        check_fallbacks(snapshot),
        check_claims(snapshot),
        check_refusal(snapshot),
    )
    return [finding for finding in checks if finding]


def check_tenant(snapshot: Snapshot) -> Finding | None:
    """A namespace without a Tenant has no API key that could reach its services, and no quota."""
    if snapshot.tenant:
        return None
    return Finding(
        "TenantNotFound",
        f"No Tenant owns namespace '{snapshot.namespace}'; add it to spec.namespaces of a Tenant.",
        blocks_start=True,
    )


def check_model(snapshot: Snapshot) -> Finding | None:
    """A worker without its Model would only crash."""
    wanted, model = snapshot.spec.model, snapshot.model
    if model is None:
        message = f"Model '{wanted}' is not in namespace '{snapshot.namespace}'"
        hint = _did_you_mean(wanted, snapshot.model_names) or ". Apply it, or name another."
        return Finding("ModelNotFound", message + hint, blocks_start=True)
    if model.unread:
        message = f"Model '{wanted}' cannot be read, and its workers stay as they are. {explained(model.unread)}"
        return Finding("ModelNotUnderstood", message, blocks_start=True)
    if model.ready:
        return None
    if model.stalled:
        return Finding("ModelNotReady", f"Model '{wanted}' is not ready: {model.stalled}", blocks_start=True)
    return Finding(
        "ModelNotReady",
        f"Model '{wanted}' is not ready yet ({model.reason}); `kubectl get model {wanted}` shows how far it is.",
        blocks_start=True,
        needs_person=False,
    )


def check_sla(snapshot: Snapshot) -> Finding | None:
    """Workers start without it: they serve, only nothing is measured."""
    wanted = snapshot.spec.sla
    if wanted is not None and snapshot.sla_unread:
        return Finding("SLANotUnderstood", f"SLA '{wanted}' cannot be read. {explained(snapshot.sla_unread)}")
    if wanted is None or snapshot.sla_found:
        return None
    hint = _did_you_mean(wanted, snapshot.sla_names) or ". Apply it, or leave spec.sla out."
    return Finding("SLANotFound", f"SLA '{wanted}' is not in namespace '{snapshot.namespace}'{hint}")


def check_fallbacks(snapshot: Snapshot) -> Finding | None:
    """Gateways follow no fallback of a fallback, so a circle does no harm but to whoever counts on it."""
    if (missing := missing_fallback(snapshot.name, snapshot.fallbacks)) is not None:
        hint = _did_you_mean(missing, sorted(snapshot.fallbacks)) or ". Apply it, or take it out of spec.fallbacks."
        message = f"Fallback '{missing}' is no InferenceService of namespace '{snapshot.namespace}'{hint}"
        return Finding("FallbackNotFound", message)
    if way := circle(snapshot.name, snapshot.fallbacks):
        return Finding("FallbackCircle", f"The fallbacks lead back: {' → '.join(way)}. Take one of them out.")
    return None


def check_claims(snapshot: Snapshot) -> Finding | None:
    """A pod with a claim would be refused, or run without its devices."""
    if snapshot.allocation is Allocation.DEVICE_PLUGIN or TEMPLATE_KIND in snapshot.optional_kinds:
        return None
    message = f"Its GPUPool gives devices by ResourceClaims, but {NO_API}"
    return Finding("NoResourceClaims", message, blocks_start=True)


def check_refusal(snapshot: Snapshot) -> Finding | None:
    """A quota on object counts, an admission webhook, a policy of the cluster."""
    return Finding("ChildRefused", snapshot.refused) if snapshot.refused else None


def _did_you_mean(wanted: str, names: Sequence[str]) -> str | None:
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else None
