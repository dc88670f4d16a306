"""What the caches and the history say of the services of a policy. Reads; decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from controllers.alerting.past import Past
from controllers.history.interface import ServiceId
from controllers.inference_service.caches import Caches
from controllers.plans.alerting.book import Book, Policy
from controllers.plans.alerting.causes import CHANGE_AGE_S, Change
from controllers.plans.alerting.incidents import Sight
from controllers.plans.alerting.readings import COARSE_S, FINE_S, FINE_SPAN_S, GAUGES, Budget, ServiceFacts
from controllers.plans.alerting.topology import REVISION, Part, Pod, Reach, Topology, build, gpus_of
from controllers.plans.sla import contradiction
from controllers.plans.times import unix_s
from crds import contract
from crds.alert_policy import AlertRule, Metric
from crds.conditions import QUALITY_DRIFT
from crds.fields import seconds
from crds.sla import SLASpec
from kube.resources import Object

SIGHT_S: Final = 5.0
"""How long one view of the topology serves."""


class Observer:
    """Facts about the services of a policy, and the sight of a namespace."""

    def __init__(
        self, caches: Caches, past: Past, system_namespace: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._caches, self._past, self._system, self._clock = caches, past, system_namespace, clock
        self._topologies: dict[str | None, tuple[float, Topology]] = {}

    def services(self, policy: Policy) -> list[Object]:
        """Those that its rules are about."""
        of_namespace = self._caches.services.by("by_namespace", policy.namespace)
        wanted = policy.spec.services
        return [one for one in of_namespace if wanted is None or one["metadata"]["name"] in wanted]

    def missing(self, policy: Policy) -> list[str]:
        """Names in spec.services that do not exist."""
        there = {one["metadata"]["name"] for one in self.services(policy)}
        return [name for name in policy.spec.services or () if name not in there]

    async def facts(self, policy: Policy) -> list[ServiceFacts]:
        """Of each service, as far as its rules ask."""
        rules = policy.spec.alert_rules or []
        return [await self._of(one, rules) for one in self.services(policy)]

    async def _of(self, service: Object, rules: Iterable[AlertRule]) -> ServiceFacts:
        meta = service["metadata"]
        place = ServiceId(meta["namespace"], meta["name"])
        steps = {step for rule in rules for step in steps_of(rule)}
        counts = {step: await self._past.counts(place, step) for step in steps}
        calibrated = {one.metric for one in rules if one.metric and one.anomaly and one.anomaly.false_alarms}
        found = {metric: await self._past.improbability(place, metric) for metric in calibrated}
        return ServiceFacts(
            namespace=place.namespace,
            name=place.name,
            fine=counts.get(FINE_S),
            coarse=counts.get(COARSE_S),
            gauges=gauges(service),
            budget=self.budget(service),
            improbability={metric: pair for metric, pair in found.items() if pair is not None},
        )

    def budget(self, service: Object) -> Budget | None:
        """Of its SLA; None without an availability, or with one that makes no sense."""
        name = service["spec"].get("sla")
        sla = self._caches.slas.get(service["metadata"]["namespace"], name) if name else None
        if sla is None:
            return None
        spec = SLASpec.model_validate(sla["spec"])
        if spec.availability is None or spec.window is None or contradiction(spec) is not None:
            return None
        share = 1.0 - float(spec.availability.rstrip("%")) / 100.0
        return Budget(share, seconds(spec.window), f"{spec.availability} over {spec.window}")

    def sight(self, policy: Policy, book: Book) -> Sight:
        """What a policy may see: its namespace; of the operator's namespace, everything."""
        scope = None if policy.namespace == self._system else policy.namespace
        gpus = gpus_of(one.labels for one in book.alerts.values() if one.firing and one.labels.get("node"))
        if gpus:
            return Sight(Reach(self._topology(scope, gpus)), self._changes(scope))
        made = self._topologies.get(scope)
        if made is None or self._clock() - made[0] > SIGHT_S:
            made = self._topologies[scope] = (self._clock(), self._topology(scope, {}))
        return Sight(Reach(made[1]), self._changes(scope))

    def _topology(self, namespace: str | None, gpus: Mapping[str, Part]) -> Topology:
        services = {
            f"{one['metadata']['namespace']}/{one['metadata']['name']}": one["spec"].get("model")
            for one in self._caches.services.items()
            if namespace in (None, one["metadata"]["namespace"])
        }
        pods = (
            Pod(one.namespace, one.worker.name, one.service, one.worker.revision, one.worker.node)
            for one in self._caches.pods.items()
            if namespace in (None, one.namespace) and not one.worker.leaving
        )
        return build(services, pods, gpus)

    def _changes(self, namespace: str | None) -> list[Change]:
        """Revisions that appeared lately."""
        since_s, found = self._clock() - 2 * CHANGE_AGE_S, []
        for one in self._caches.deployments.items():
            meta = one["metadata"]
            labels = meta.get("labels") or {}
            at_s = _moment(meta.get("creationTimestamp"))
            if at_s is None or at_s < since_s or namespace not in (None, meta["namespace"]):
                continue
            name = f"{meta['namespace']}/{labels.get(contract.LABEL_SERVICE)}/{labels.get(contract.LABEL_REVISION)}"
            found.append(Change(Part(REVISION, name), at_s, "it was rolled out"))
        return found


def steps_of(rule: AlertRule) -> set[float]:
    """In which steps a rule looks at the history."""
    if rule.burn_rate is not None:
        return {FINE_S, COARSE_S}
    if rule.metric in GAUGES:
        return set()
    if rule.anomaly is not None:
        return {COARSE_S}
    over = rule.threshold.over if rule.threshold else rule.trend.over if rule.trend else "5m"
    return {FINE_S if seconds(over) <= FINE_SPAN_S else COARSE_S}


def gauges(service: Mapping[str, Any]) -> dict[Metric, float]:
    """What the service's own status says. What it does not say is left out."""
    status: Mapping[str, Any] = service.get("status") or {}
    found: dict[Metric, float] = {}
    desired = status.get("desiredReplicas")
    if desired is not None:
        found[Metric.WORKERS_MISSING] = float(max(0, desired - (status.get("readyReplicas") or 0)))
    conditions = status.get("conditions") or ()
    if conditions:
        found[Metric.QUALITY_DRIFT] = float(any(one["type"] == QUALITY_DRIFT for one in conditions))
    for one in conditions:
        if one["type"] == "Servable":
            # One that sleeps, or is asked to have no worker, is in no trouble.
            found[Metric.UNSERVABLE] = 0.0 if one["status"] == "True" or desired == 0 else 1.0
    return found


def _moment(text: str | None) -> float | None:
    return unix_s(text) if text else None
