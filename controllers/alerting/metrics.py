"""Gauges of alerts and of the services that they are about, made at each scrape from what is known.

Bounded: a series for each policy, severity and state, for each service, and for each calibrated metric of a service.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controllers.alerting.desk import AlertDesk
from controllers.alerting.facts import gauges
from controllers.alerting.past import Past
from controllers.plans.alerting.alerts import State
from crds import contract
from crds.alert_policy import Metric as Watched
from kube.informer import Informer
from kube.resources import Object


class AlertMetrics(Collector):
    """Reads; changes nothing."""

    def __init__(self, desk: AlertDesk, past: Past, services: Informer[Object]) -> None:
        self._desk, self._past, self._services = desk, past, services

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield self._alerts()
        yield self._undelivered()
        yield from self._of_services()
        yield self._surprises()

    def _alerts(self) -> GaugeMetricFamily:
        labels = ("namespace", "policy", "severity", "state")
        family = GaugeMetricFamily(contract.METRIC_ALERTS, "Alerts of policies that wait or fire.", labels=labels)
        for (namespace, policy), book in self._desk.books().items():
            counts = Counter(
                (one.severity.value, one.state.value) for one in book.alerts.values() if one.state is not State.RESOLVED
            )
            for (severity, state), n in sorted(counts.items()):
                family.add_metric((namespace, policy, severity, state), float(n))
        return family

    def _undelivered(self) -> GaugeMetricFamily:
        name, text = "foretide_alert_failed_attempts", "Attempts since a receiver last took a message."
        family = GaugeMetricFamily(name, text, labels=("namespace", "policy", "receiver"))
        for (namespace, policy), book in self._desk.books().items():
            worst: Counter[str] = Counter()
            for incident in book.incidents.values():
                for one in incident.deliveries.values():
                    worst[one.receiver] = max(worst[one.receiver], one.attempts)
            for receiver, attempts in sorted(worst.items()):
                family.add_metric((namespace, policy, receiver), float(attempts))
        return family

    def _of_services(self) -> Iterator[GaugeMetricFamily]:
        labels = ("namespace", "service")
        missing = GaugeMetricFamily(
            contract.METRIC_SERVICE_WORKERS_MISSING, "Wanted workers that are not ready.", labels=labels
        )
        unservable = GaugeMetricFamily(
            contract.METRIC_SERVICE_UNSERVABLE, "1 while a request would not be answered.", labels=labels
        )
        drift = GaugeMetricFamily(
            contract.METRIC_SERVICE_QUALITY_DRIFT, "1 while answers are unlike the baseline's.", labels=labels
        )
        families = {Watched.WORKERS_MISSING: missing, Watched.UNSERVABLE: unservable, Watched.QUALITY_DRIFT: drift}
        for service in self._services.items():
            place = (service["metadata"]["namespace"], service["metadata"]["name"])
            for metric, value in gauges(service).items():
                families[metric].add_metric(place, value)
        return iter(families.values())

    def _surprises(self) -> GaugeMetricFamily:
        labels = ("namespace", "service", "metric", "direction")
        family = GaugeMetricFamily(
            contract.METRIC_ANOMALY, "-log10 of how probable the last ten minutes were.", labels=labels
        )
        for (service, metric), (away, score) in self._past.surprises().items():
            direction = "above" if away > 0 else "below"
            family.add_metric((service.namespace, service.name, metric.value, direction), score)
        return family
