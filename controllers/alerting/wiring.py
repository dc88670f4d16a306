"""Puts alerting together: memory, desk, courier, reconciler, the hook, and who wakes a policy. Starts nothing."""

from __future__ import annotations

from dataclasses import dataclass

from controllers.alerting.courier import ADVICE, Courier
from controllers.alerting.desk import AlertDesk
from controllers.alerting.facts import Observer, gauges
from controllers.alerting.inbound import alerts_hook
from controllers.alerting.metrics import AlertMetrics
from controllers.alerting.past import Past
from controllers.alerting.reconciler import AlertPolicyReconciler
from controllers.alerting.secrets import Secrets
from controllers.alerting.wishes import WishBoard
from controllers.apply import Applier
from controllers.guard import AddressGuard
from controllers.history.interface import HistorySource
from controllers.history.thread import StoreThread
from controllers.inference_service.caches import Caches
from controllers.runtime.interface import Background, Hook, Marker
from controllers.settings import Settings
from kube.api import Api
from kube.events import Recorder
from kube.informer import Change, Informer
from kube.resources import Object


@dataclass(frozen=True, slots=True)
class Wired:
    """What the runtime runs of this controller."""

    reconciler: AlertPolicyReconciler
    background: tuple[Background, ...]
    hooks: tuple[Hook, ...]
    metrics: AlertMetrics


def wire_alerting(
    client: Api,
    settings: Settings,
    queue: Marker,
    recorder: Recorder,
    applier: Applier,
    *,
    policies: Informer[Object],
    around_services: Caches,
    store: StoreThread,
    source: HistorySource,
    wishes: WishBoard | None = None,
) -> Wired:
    """Everything connected. `policies` has the index `by_namespace`."""
    chosen, system = settings.alerting, settings.namespace
    past, secrets = Past(source), Secrets(client)
    observer = Observer(around_services, past, system)
    courier = Courier(AddressGuard(chosen.allow_private_networks, ADVICE), secrets)
    desk = AlertDesk(policies, observer, store, courier, queue, system, wishes or WishBoard())
    reconciler = AlertPolicyReconciler(
        client, policies, desk, observer, past, applier, recorder, rule_labels=chosen.rule_labels
    )

    def look_soon(change: Change[Object]) -> None:
        """A worker more or less, or another word on whether it serves: not waited for until the next look."""
        sides = [gauges(one) for one in (change.old, change.new) if one]
        if len(sides) < 2 or sides[0] != sides[1]:
            for policy in policies.by("by_namespace", change.namespace or ""):
                desk.wake((change.namespace or "", policy["metadata"]["name"]))

    around_services.services.on_change(look_soon)
    policies.on_change(lambda change: desk.wake((change.namespace or "", change.name)) if _edited(change) else None)

    hook = alerts_hook(desk, secrets, system, chosen.webhook_secret)
    metrics = AlertMetrics(desk, past, around_services.services)
    return Wired(reconciler, (Background("the alerts", desk.run),), (hook,), metrics)


def _edited(change: Change[Object]) -> bool:
    specs = [one.get("spec") for one in (change.old, change.new) if one]
    return len(specs) < 2 or specs[0] != specs[1]
