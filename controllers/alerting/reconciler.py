"""Writes what the desk knows: the status of a policy, its Events, and its rules for Prometheus where asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import yaml
from pydantic import ValidationError

from controllers.alerting.desk import AlertDesk, Place
from controllers.alerting.facts import Observer
from controllers.alerting.past import Past
from controllers.announce import write_misread, write_verdict
from controllers.apply import Applier
from controllers.plans.alerting import rule_files, status
from controllers.plans.alerting.book import Book, Policy
from controllers.refusals import NOT_TAKEN, Refusals
from controllers.runtime.interface import Key, Outcome
from crds.alert_policy import AlertPolicySpec
from crds.contract import API_VERSION, LABEL_MANAGED_BY, LABEL_POLICY, MANAGED_BY
from crds.reading import unread_in
from kube.api import Api, find
from kube.errors import AnswerError, NotFound, Unreachable
from kube.events import Recorder
from kube.informer import Informer
from kube.resources import ALERT_POLICIES, CONFIG_MAPS, PROMETHEUS_RULES, Object, Resource

KIND: Final = ALERT_POLICIES.kind
RULE_FILE: Final = "rules.yaml"
LOOK_AGAIN: Final = timedelta(minutes=5)
"""Whether written rules still stand, and in which kind, is looked at again after this: no cache follows them."""


@dataclass(frozen=True, slots=True)
class _Exported:
    """Rules as they were last written, and the uid of the policy that they go with."""

    uid: str
    groups: Mapping[str, Any]
    at: datetime
    where: str


class AlertPolicyReconciler:
    """Needs the desk to have looked; before that it writes nothing."""

    kind = KIND

    def __init__(
        self,
        client: Api,
        policies: Informer[Object],
        desk: AlertDesk,
        observer: Observer,
        past: Past,
        applier: Applier,
        recorder: Recorder,
        *,
        rule_labels: Mapping[str, str] | None = None,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._policies = client, policies
        self._desk, self._observer, self._past = desk, observer, past
        self._applier, self._recorder, self._wall_clock = applier, recorder, wall_clock
        self._rule_labels = rule_labels or {}
        self._said: dict[Place, Book] = {}
        self._exported: dict[Place, _Exported] = {}
        self._refusals = Refusals()
        self._without_rules: set[Place] = set()
        """Policies of which this process has made sure that no rules lie there."""

    async def reconcile(self, key: Key) -> Outcome:
        obj = self._policies.get(key.namespace, key.name)
        place = (key.namespace or "", key.name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            self._applier.forget(KIND, key.namespace, key.name)
            self._said.pop(place, None)
            self._exported.pop(place, None)
            self._without_rules.discard(place)
            self._refusals.forget(place)
            self._desk.wake(place)
            return Outcome()
        try:
            policy = Policy(*place, AlertPolicySpec.model_validate(obj["spec"]))
        except ValidationError as error:
            await write_misread(
                self._applier, self._recorder, ALERT_POLICIES, obj, unread_in(error, "spec"),
                observed=obj.get("status") or {}, now=self._wall_clock(),
            )  # fmt: skip
            return Outcome()
        book = self._desk.book(place)
        if book is not None:
            exported, refusal = await self._exported_or_refused(obj, policy)
            await self._write(obj, policy, book, exported)
            if refusal is not None:
                raise refusal  # Tried again with the pauses of the queue.
        return Outcome()

    async def _exported_or_refused(
        self, obj: Object, policy: Policy
    ) -> tuple[str | None, AnswerError | Unreachable | None]:
        """Where the rules lie. Rules that the API server does not take hide nothing else that the status says."""
        place, meta = (policy.namespace, policy.name), obj["metadata"]
        try:
            exported = await self._export(obj, policy)
        except NOT_TAKEN as error:
            self._refusals.hear(place, error, self._wall_clock(), generation=int(meta.get("generation", 0)))
            return (obj.get("status") or {}).get("exported"), error
        self._refusals.forget(place)
        return exported, None

    async def _write(self, obj: Object, policy: Policy, book: Book, exported: str | None) -> None:
        meta, observed, place = obj["metadata"], obj.get("status") or {}, (policy.namespace, policy.name)
        found = status.troubles(
            policy, self._observer.missing(policy), book, self._past.trouble, self._refusals.told(place)
        )
        said = status.conditions(found, policy, len(self._observer.services(policy)))
        wanted = status.fields(policy, book) | {"observedGeneration": int(meta.get("generation", 0))}
        if exported:
            wanted["exported"] = exported
        await write_verdict(
            self._applier, self._recorder, ALERT_POLICIES, obj, wanted, said,
            observed=observed, now=self._wall_clock(),
        )  # fmt: skip
        self._tell(obj, place, book)

    def _tell(self, obj: Object, place: Place, book: Book) -> None:
        for one in status.news(self._said.get(place), book):
            record = self._recorder.warning if one.warning else self._recorder.normal
            record(obj, one.reason, one.message)
        self._said[place] = book

    # --- rules for Prometheus ---------------------------------------------------------------------------------------
    async def _export(self, obj: Object, policy: Policy) -> str | None:
        """Where the rules lie; None where none are asked for."""
        place, said = (policy.namespace, policy.name), (obj.get("status") or {}).get("exported")
        if not policy.spec.export or not policy.spec.alert_rules:
            self._exported.pop(place, None)
            # The status may not say what was written: its writer can die between the two.
            if said or place not in self._without_rules:
                for resource in (PROMETHEUS_RULES, CONFIG_MAPS):
                    await self._remove(resource, obj)
            self._without_rules.add(place)
            return None
        self._without_rules.discard(place)
        groups = rule_files.groups(*place, policy.spec, self._budgets(policy))
        known, now, uid = self._exported.get(place), self._wall_clock(), obj["metadata"]["uid"]
        if known is None or (known.uid, known.groups) != (uid, groups) or now - known.at >= LOOK_AGAIN:
            known = self._exported[place] = _Exported(uid, groups, now, await self._write_rules(obj, policy, groups))
        return known.where

    def _budgets(self, policy: Policy) -> Mapping[str, Any]:
        found = {one["metadata"]["name"]: self._observer.budget(one) for one in self._observer.services(policy)}
        return {name: budget for name, budget in found.items() if budget is not None}

    async def _write_rules(self, obj: Object, policy: Policy, groups: Mapping[str, Any]) -> str:
        """A PrometheusRule where that kind is known, else a ConfigMap with a rule file; never both."""
        name = rules_name(policy.name)
        try:
            await self._ensure(child(obj, PROMETHEUS_RULES, {"spec": groups}, self._rule_labels), PROMETHEUS_RULES)
        except NotFound:
            text = yaml.safe_dump(groups, sort_keys=False, width=1000)
            await self._ensure(child(obj, CONFIG_MAPS, {"data": {RULE_FILE: text}}), CONFIG_MAPS)
            return f"ConfigMap/{name}"
        await self._remove(CONFIG_MAPS, obj)
        return f"PrometheusRule/{name}"

    async def _ensure(self, wanted: Object, resource: Resource) -> None:
        meta = wanted["metadata"]
        await self._applier.ensure(wanted, await find(self._client, resource, meta["namespace"], meta["name"]))

    async def _remove(self, resource: Resource, obj: Object) -> None:
        """Only what was written for this very policy: it may be gone already, and another of its name have rules."""
        meta = obj["metadata"]
        held = await find(self._client, resource, meta["namespace"], rules_name(meta["name"]))
        owners = [] if held is None else held["metadata"].get("ownerReferences") or []
        if held is not None and any(one.get("uid") == meta["uid"] for one in owners):
            await self._applier.delete(resource, held)


def rules_name(policy: str) -> str:
    """Of the object with a policy's rules."""
    return f"foretide-alerts-{policy}"


def child(
    obj: Object, resource: Resource, content: Mapping[str, Any], labels: Mapping[str, str] | None = None
) -> Object:
    """It goes with its policy. labels: besides ours."""
    meta = obj["metadata"]
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {
            "name": rules_name(meta["name"]),
            "namespace": meta["namespace"],
            "labels": {**(labels or {}), LABEL_MANAGED_BY: MANAGED_BY, LABEL_POLICY: meta["name"]},
            "ownerReferences": [owner],
        },
        **content,
    }
