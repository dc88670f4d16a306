"""What a Tenant gets in each of its namespaces, and what its status says. Pure; keys are `plans.keyring`'s matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final

from controllers.plans.keyring import Problem
from controllers.plans.tenancy import Demand, Tenant, owner_of
from crds.conditions import BORROWING, READY, STALLED
from crds.contract import API_VERSION, LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY
from crds.reading import concerns

QUOTA_NAME: Final = "foretide-tenant"
POLICY_NAME: Final = "foretide-workers"
_LONGEST_MESSAGE: Final = 2000

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Holding:
    """What a Tenant holds of the namespaces it lists."""

    owned: Sequence[str]
    """Its own and existing: here its policy and quota stand, and its services are served."""
    problems: Sequence[Problem]


def holding_of(tenant: Tenant, tenants: Iterable[Tenant], existing: AbstractSet[str]) -> Holding:
    """Which of the listed namespaces are this Tenant's, and why the others are not."""
    everyone = list(tenants)
    owned: list[str] = []
    problems: list[Problem] = []
    for namespace in sorted(tenant.spec.namespaces):
        owner = owner_of(namespace, everyone)
        if owner is not None and owner.name != tenant.name:
            problems.append(
                Problem(
                    "NamespaceTaken",
                    f"Namespace '{namespace}' belongs to Tenant '{owner.name}', which listed it first;"
                    " remove it from one of the two.",
                )
            )
        elif namespace not in existing:
            problems.append(
                Problem(
                    "NamespaceNotFound",
                    f"Namespace '{namespace}' does not exist; create it or remove it from spec.namespaces.",
                )
            )
        else:
            owned.append(namespace)
    return Holding(owned, problems)


def children(tenant: Tenant, owned: Iterable[str]) -> list[Manifest]:
    """ResourceQuota and NetworkPolicy of each owned namespace. A quota that cannot be read makes no ResourceQuota."""
    out: list[Manifest] = []
    for namespace in owned:
        out.append(network_policy(tenant, namespace))
        quota = None if concerns(tenant.unread, "quota") else resource_quota(tenant, namespace)
        if quota is not None:
            out.append(quota)
    return out


def stray(
    wanted: Iterable[Manifest], observed: Iterable[Mapping[str, Any]], tenant_name: str
) -> list[Mapping[str, Any]]:
    """Observed children of the Tenant that it should not have any more."""
    keep = {_identity(one) for one in wanted}
    return [
        one
        for one in observed
        if one["metadata"]["name"] in (QUOTA_NAME, POLICY_NAME)
        and (one["metadata"].get("labels") or {}).get(LABEL_TENANT) == tenant_name
        and _identity(one) not in keep
    ]


def resource_quota(tenant: Tenant, namespace: str) -> Manifest | None:
    """The sum of requests in the namespace; None when the Tenant limits neither cpu nor memory."""
    quota = tenant.spec.quota
    hard: dict[str, str] = {}
    if quota is not None and quota.cpu is not None:
        hard["requests.cpu"] = quota.cpu
    if quota is not None and quota.memory is not None:
        hard["requests.memory"] = quota.memory
    if not hard:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": _metadata(tenant, namespace, QUOTA_NAME),
        "spec": {"hard": hard},
    }


def network_policy(tenant: Tenant, namespace: str) -> Manifest:
    """Workers neither receive nor send anything, except what another policy allows."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(tenant, namespace, POLICY_NAME),
        "spec": {
            "podSelector": {"matchLabels": {LABEL_MANAGED_BY: MANAGED_BY}},
            "policyTypes": ["Ingress", "Egress"],
        },
    }


@dataclass(frozen=True, slots=True)
class Assessment:
    """The status to write, without condition times."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    conditions: Sequence[Manifest] = ()


def assess(
    tenant: Tenant, holding: Holding, key_problems: Sequence[Problem], valid_keys: int, demand: Demand
) -> Assessment:
    """Everything that `kubectl get tenant` shows."""
    quota = tenant.spec.quota
    return Assessment(
        fields={
            "observedGeneration": tenant.generation,
            "validKeys": valid_keys,
            "services": demand.services,
            "replicas": _of(demand.replicas, quota.replicas if quota else None),
            "gpus": _of(demand.gpus, quota.gpus if quota else None),
            "migGigabytes": _of(demand.mig_gigabytes, quota.mig_gigabytes if quota else None),
            "sharedGigabytes": _of(demand.shared_gigabytes, quota.shared_gigabytes if quota else None),
            "migSlices": _of(demand.mig_slices, quota.mig_slices if quota else None),
        },
        conditions=[
            *_conditions(tenant, holding, [*holding.problems, *key_problems], valid_keys),
            *_borrowing(tenant, demand),
        ],
    )


def _conditions(tenant: Tenant, holding: Holding, problems: Sequence[Problem], valid_keys: int) -> list[Manifest]:
    if not problems:
        keys = f"{valid_keys} API key{'' if valid_keys == 1 else 's'}"
        message = f"{keys} speak{'s' if valid_keys == 1 else ''} for {', '.join(holding.owned)}."
        if not tenant.spec.api_keys:
            message = f"No client can speak for {', '.join(holding.owned)}: spec.apiKeys is empty."
        return [{"type": READY, "status": "True", "reason": "Ready", "message": message}]
    message = " ".join(_sentence(one.message) for one in problems)
    if len(message) > _LONGEST_MESSAGE:
        message = message[: _LONGEST_MESSAGE - 1] + "…"
    reason = problems[0].reason
    return [
        {"type": READY, "status": "False", "reason": reason, "message": message},
        {"type": STALLED, "status": "True", "reason": reason, "message": message},
    ]


def _borrowing(tenant: Tenant, demand: Demand) -> list[Manifest]:
    """What its services have over its quota."""
    quota, borrowing = tenant.spec.quota, tenant.spec.borrowing
    if quota is None or borrowing is None:
        return []
    lines = (
        (demand.replicas, quota.replicas, "replicas"),
        (demand.gpus, quota.gpus, "GPUs"),
        (demand.mig_slices, quota.mig_slices, "MIG slices"),
        (demand.mig_gigabytes, quota.mig_gigabytes, "GB of MIG slices"),
        (demand.shared_gigabytes, quota.shared_gigabytes, "GB of shared GPUs"),
    )
    over = [
        f"{has - own} {unit} (has {has}, its quota is {own})"
        for has, own, unit in lines
        if own is not None and has > own
    ]
    if not over:
        return []
    message = f"Borrows {', '.join(over)} of cohort '{borrowing.cohort}', until its others want them back."
    return [{"type": BORROWING, "status": "True", "reason": "QuotaBorrowed", "message": message}]


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _of(wanted: int, allowed: int | None) -> str:
    return str(wanted) if allowed is None else f"{wanted}/{allowed}"


def _metadata(tenant: Tenant, namespace: str, name: str) -> Manifest:
    return {
        "name": name,
        "namespace": namespace,
        "labels": {LABEL_MANAGED_BY: MANAGED_BY, LABEL_TENANT: tenant.name},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "Tenant",
                "name": tenant.name,
                "uid": tenant.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }


def _identity(obj: Mapping[str, Any]) -> tuple[str, str, str]:
    return (str(obj["kind"]), str(obj["metadata"]["namespace"]), str(obj["metadata"]["name"]))
