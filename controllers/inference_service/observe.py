"""Observe: a frozen Snapshot of one InferenceService, from caches and from what probes and scrapes last said.

Reads only; asks nobody. Every fact is as old as its cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from controllers.difference import controller_of
from controllers.inference_service.caches import BY_NAMESPACE, BY_SERVICE, Caches, gateway_addresses, service_place
from controllers.plans.alerting.wishes import NOTHING, Wishes
from controllers.plans.canary.values import Compared
from controllers.plans.capacity import LEAST_LEAD_S
from controllers.plans.carried import MeanLengths, known_of
from controllers.plans.claims import claim_of
from controllers.plans.fallbacks import named_fallbacks
from controllers.plans.healing.values import NodeFacts, Objections
from controllers.plans.limits import share_of
from controllers.plans.mig.chosen import is_auto, spec_of
from controllers.plans.mig.claims import TEMPLATE_KIND, Giver, givers_of
from controllers.plans.mig.offers import offers_of, pool_specs
from controllers.plans.mig.profile_choice import SliceFacts
from controllers.plans.model_volume import model_volume
from controllers.plans.quality import Drift
from controllers.plans.snapshot import (
    Claim,
    Demanded,
    Load,
    ModelView,
    Neighbour,
    Probe,
    Revision,
    Snapshot,
    Worker,
)
from controllers.plans.tenancy import Tenant, owner_of
from crds import contract
from crds.conditions import READY, STALLED
from crds.gpu_pool import GPUPoolSpec
from crds.healing import HealthStatus
from crds.inference_service import Allocation, InferenceServiceSpec, InferenceServiceStatus
from crds.model import MeasuredProfile, ModelFormat
from crds.reading import concerns, unread_of
from crds.sla import Priority
from forecasting.policy import Judged
from forecasting.standing import Forecasted
from kube.resources import Object


@dataclass(frozen=True, slots=True)
class Heard:
    """What does not come from caches of the API server."""

    loads: Mapping[str, Load]
    probe: Probe | None
    refused: str | None
    is_unseen: Callable[[Object], bool]
    """Whether we wrote this Deployment and the cache does not show it yet."""
    compared: Compared | None = None
    budget_spent: str | None = None
    wishes: Wishes = NOTHING
    drifts: tuple[Drift, ...] | None = ()
    demand: Demanded | None = None
    forecast: Forecasted | None = None
    lead_time_s: float = LEAST_LEAD_S
    lengths: MeanLengths | None = None
    lengths_awaited: bool = False
    learned_work_per_s: float | None = None
    judged: Judged | None = None
    objections: Objections | None = None
    health: HealthStatus | None = None
    """What was last decided; None before the first look, which goes on from the status."""


class Observer:
    """Makes snapshots. Holds only what is costly to work out again: the claims of services that did not change."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        self._claims: dict[str, tuple[str, Claim]] = {}

    def snapshot(self, service: Object, heard: Heard) -> Snapshot:
        """Of the service as the cache shows it."""
        meta = service["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        written, spec = InferenceServiceSpec.model_validate(service["spec"]), spec_of(service)
        place = service_place(namespace, name)
        model = self._caches.models.get(namespace, spec.model)
        sla = self._caches.slas.get(namespace, spec.sla) if spec.sla else None
        tenant = self._tenant(namespace)
        status = InferenceServiceStatus.model_validate(service.get("status") or {})
        workers = tuple(entry.worker for entry in self._caches.pods.by(BY_SERVICE, place))
        nodes = self._nodes(workers)
        return Snapshot(
            namespace=namespace,
            name=name,
            uid=meta["uid"],
            generation=meta.get("generation", 0),
            created=meta.get("creationTimestamp", ""),
            spec=spec,
            status=status,
            deleting=bool(meta.get("deletionTimestamp")),
            finalizers=tuple(meta.get("finalizers") or ()),
            model=model_view(model) if model else None,
            model_names=() if model else self._names(self._caches.models.places(), namespace),
            sla_found=sla is not None,
            sla_unread=unread_of(sla),
            sla_names=self._names(self._caches.slas.places(), namespace) if spec.sla else (),
            fallbacks=self._fallbacks(namespace) if spec.fallbacks else {},
            tenant=tenant,
            other_claims=self._other_claims(tenant, place),
            cohort=self._cohort(tenant),
            priority=_priority(sla),
            revisions=tuple(
                revision_view(one, settled=not heard.is_unseen(one))
                for one in self._caches.deployments.by(BY_SERVICE, place)
                if _is_ours(one, meta["uid"])
            ),
            workers=workers,
            loads=heard.loads,
            demand=heard.demand,
            forecast=heard.forecast,
            lead_time_s=heard.lead_time_s,
            judged=heard.judged,
            known=known_of(spec, model, sla, heard.lengths, heard.learned_work_per_s),
            lengths_awaited=heard.lengths_awaited,
            pool_share=share_of(place, self._caches.pools.items()) if spec.scaling else None,
            slices=self._slices(written, model, sla) if is_auto(written) else None,
            allocation=status.allocation or Allocation.DEVICE_PLUGIN,
            givers=self._givers(spec, status),
            claim_templates=frozenset(
                one["metadata"]["labels"].get(contract.LABEL_REVISION, "")
                for one in self._caches.surroundings[TEMPLATE_KIND].by(BY_SERVICE, place)
                if _is_ours(one, meta["uid"])
            ),
            evacuating=frozenset(self._caches.evacuating.items()),
            autoscaler=self._autoscaler(place),
            gateways=gateway_addresses(self._caches),
            optional_kinds=self._caches.optional_kinds,
            probe=heard.probe,
            compared=heard.compared,
            budget_spent=heard.budget_spent,
            wishes=heard.wishes,
            drifts=heard.drifts,
            refused=heard.refused,
            objections=heard.objections,
            nodes=nodes,
            other_nodes=all(one.ready for one in nodes.values())
            or any(one.ready for one in self._caches.nodes.items()),
            health=heard.health or status.health,
        )

    def _nodes(self, workers: Iterable[Worker]) -> dict[str, NodeFacts]:
        found = ((name, self._caches.nodes.get(None, name)) for name in {one.node for one in workers if one.node})
        return {name: facts for name, facts in found if facts is not None}

    def _givers(self, spec: InferenceServiceSpec, status: InferenceServiceStatus) -> tuple[Giver, ...]:
        """None where the device plugin gives everything, as it always did: then nobody has to look at nodes."""
        asks = spec.accelerator.mig or spec.accelerator.gpu
        if not asks or not (self._caches.gives_claims() or status.allocation):
            return ()
        return givers_of(self._pool_specs(), self._caches.gpu_nodes.items(), spec.node_selector or {})

    def _pool_specs(self) -> dict[str, GPUPoolSpec]:
        return pool_specs(self._caches.pools.items())

    def _slices(self, spec: InferenceServiceSpec, model: Object | None, sla: Object | None) -> SliceFacts:
        status: Mapping[str, Any] = (model or {}).get("status") or {}
        format_ = (model or {}).get("spec", {}).get("format") or status.get("format")
        return SliceFacts(
            model=model["metadata"].get("uid", "") if model else "",
            size_bytes=status.get("sizeBytes"),
            format=ModelFormat(format_) if format_ else None,
            measured=tuple(MeasuredProfile.model_validate(one) for one in status.get("profiles") or ()),
            offers=offers_of(self._pool_specs(), self._caches.gpu_nodes.items(), spec.node_selector or {}),
            targets_known=spec.sla is None or (sla is not None and not concerns(unread_of(sla), "targets")),
        )

    def _autoscaler(self, place: str) -> str | None:
        return min((one.who for one in self._caches.autoscalers.by(BY_SERVICE, place)), default=None)

    def forget(self, place: str) -> None:
        """The service is gone."""
        self._claims.pop(place, None)

    def _fallbacks(self, namespace: str) -> dict[str, tuple[str, ...]]:
        services = self._caches.services.by(BY_NAMESPACE, namespace)
        return {one["metadata"]["name"]: named_fallbacks(one["spec"]) for one in services}

    def _names(self, places: list[tuple[str | None, str]], namespace: str) -> tuple[str, ...]:
        return tuple(sorted(name for where, name in places if where == namespace))

    def _tenant(self, namespace: str) -> Tenant | None:
        claiming = self._caches.tenants.by(BY_NAMESPACE, namespace)
        return owner_of(namespace, [Tenant.of(obj) for obj in claiming])

    def _other_claims(self, tenant: Tenant | None, mine: str) -> tuple[Claim, ...]:
        if tenant is None:
            return ()
        return tuple(claim for place, claim in self._claims_of(tenant) if place != mine)

    def _cohort(self, tenant: Tenant | None) -> tuple[Neighbour, ...]:
        if tenant is None or tenant.spec.borrowing is None:
            return ()
        name = tenant.spec.borrowing.cohort
        others = [
            Tenant.of(one)
            for one in self._caches.tenants.items()
            if (one["spec"].get("borrowing") or {}).get("cohort") == name and one["metadata"]["name"] != tenant.name
        ]
        return tuple(Neighbour(one, tuple(claim for _, claim in self._claims_of(one))) for one in others)

    def _claims_of(self, tenant: Tenant) -> list[tuple[str, Claim]]:
        """By place. Only worked out where a quota makes them matter."""
        quota = tenant.spec.quota
        if quota is None:
            return []
        shared = (quota.replicas, quota.gpus, quota.mig_slices, quota.mig_gigabytes, quota.shared_gigabytes)
        if all(limit is None for limit in shared):
            return []
        owned = [one for one in tenant.spec.namespaces if (owner := self._tenant(one)) and owner.uid == tenant.uid]
        services = [obj for namespace in owned for obj in self._caches.services.by(BY_NAMESPACE, namespace)]
        return [(_place(obj), self._ranked(obj, tenant)) for obj in services]

    def _ranked(self, service: Object, tenant: Tenant) -> Claim:
        """Its class is only asked for where it decides who gives back."""
        claim, sla = self._claim(service, _place(service)), service["spec"].get("sla")
        if tenant.spec.borrowing is None or not sla:
            return claim
        return replace(claim, priority=_priority(self._caches.slas.get(claim.namespace, sla)))

    def _claim(self, service: Object, place: str) -> Claim:
        version = str(service["metadata"].get("resourceVersion"))
        known = self._claims.get(place)
        if known is None or known[0] != version:
            known = self._claims[place] = (version, claim_of(service))
        return known[1]


def _priority(sla: Object | None) -> Priority:
    return Priority(sla["spec"]["priority"]) if sla else Priority.P2


def model_view(model: Object) -> ModelView:
    """What workers depend on."""
    meta, spec, status = model["metadata"], model["spec"], model.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    ready, stalled = conditions.get(READY) or {}, conditions.get(STALLED)
    return ModelView(
        name=meta["name"],
        uid=meta.get("uid", ""),
        source=spec["source"],
        digest=spec.get("digest") or status.get("digest"),
        volume=model_volume(meta["namespace"], meta["name"], spec["source"]),
        ready=ready.get("status") == "True" and not meta.get("deletionTimestamp"),
        reason="Deleting" if meta.get("deletionTimestamp") else ready.get("reason", "Pending"),
        stalled=stalled.get("message") if stalled else None,
        node_selector=spec.get("nodeSelector") or {},
        unread=unread_of(model),
    )


def revision_view(deployment: Object, *, settled: bool = True) -> Revision:
    """What the rollout needs of a Deployment."""
    meta, status = deployment["metadata"], deployment.get("status") or {}
    failures = [
        one.get("message")
        for one in status.get("conditions") or ()
        if one["type"] == "ReplicaFailure" and one["status"] == "True"
    ]
    replicas = deployment["spec"].get("replicas")
    return Revision(
        name=meta["labels"][contract.LABEL_REVISION],
        replicas=1 if replicas is None else replicas,
        created=meta.get("creationTimestamp", ""),
        settled=settled and status.get("observedGeneration", 0) >= meta.get("generation", 0),
        failure=failures[0] if failures else None,
        leaving=bool(meta.get("deletionTimestamp")),
        asked=(meta.get("annotations") or {}).get(contract.ANNOTATION_ASKED),
    )


def _is_ours(child: Object, uid: str) -> bool:
    """Not of a service that had the same name before: that one's children go with it."""
    if contract.LABEL_REVISION not in child["metadata"]["labels"]:
        return False
    owner = controller_of(child)
    return owner is None or owner["uid"] == uid


def _place(service: Object) -> str:
    return service_place(service["metadata"]["namespace"], service["metadata"]["name"])
