"""What a service is and how it stands with its SLA, as gauges made at each scrape. Reads; changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controllers.inference_service.budgets import BudgetBoard
from controllers.inference_service.quality import QualityBoard
from kube.informer import Informer
from kube.resources import Object

BY_SERVICE = ("namespace", "service")


class ServiceMetrics(Collector):
    """A few series for each InferenceService, and four of each of three kinds for each of its last revisions."""

    def __init__(self, services: Informer[Object], budgets: BudgetBoard, qualities: QualityBoard) -> None:
        self._services, self._budgets, self._qualities = services, budgets, qualities

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield self._info()
        yield self._budget()
        yield from self._qualities.families()

    def _info(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "foretide_service_info",
            "1, to join by: the model and the SLA of each service.",
            labels=(*BY_SERVICE, "model", "sla"),
        )
        for one in self._services.items():
            spec, place = one.get("spec") or {}, (one["metadata"]["namespace"], one["metadata"]["name"])
            family.add_metric((*place, spec.get("model") or "", spec.get("sla") or ""), 1.0)
        return family

    def _budget(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "foretide_service_error_budget_left",
            "Share of the SLA's error budget that is left in its window; below 0 it is overspent.",
            labels=BY_SERVICE,
        )
        for key, left in self._budgets.left().items():
            family.add_metric((key.namespace or "", key.name), left)
        return family
