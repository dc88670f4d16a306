"""Writes the CapacityForecast of every service that scales, and takes it away where one does not any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

from controllers.apply import Applier, merge_conditions
from controllers.capacity_forecast.board import Entry, ForecastBoard
from controllers.capacity_forecast.cold_starts import ColdStarts
from controllers.history.interface import ServiceId
from controllers.plans.capacity import profile_of
from controllers.plans.capacity_forecast import Outlook, conditions, manifest, status
from controllers.plans.carried import LEARNED, Carried, carried, known_of
from controllers.plans.limits import Limit
from controllers.plans.mig.chosen import spec_of
from controllers.runtime.interface import Key, Outcome
from crds.contract import LABEL_MANAGED_BY, MANAGED_BY
from crds.inference_service import InferenceServiceSpec
from crds.reading import unread_of
from forecasting.cost import Prices
from forecasting.standing import Standing
from kube.informer import Informer
from kube.resources import CAPACITY_FORECASTS, Object

KIND: Final = CAPACITY_FORECASTS.kind


class CapacityForecastReconciler:
    """A CapacityForecast has the name of its InferenceService."""

    kind = KIND

    def __init__(
        self,
        services: Informer[Object],
        models: Informer[Object],
        slas: Informer[Object],
        forecasts: Informer[Object],
        board: ForecastBoard,
        cold_starts: ColdStarts,
        capacities: MutableMapping[str, float],
        applier: Applier,
        prices: Callable[[InferenceServiceSpec], Prices],
        limits: Callable[[Key], tuple[Limit, ...]],
        *,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._services, self._forecasts, self._board = services, forecasts, board
        self._models, self._slas = models, slas
        self._cold_starts, self._capacities, self._applier = cold_starts, capacities, applier
        self._prices, self._limits, self._wall_clock = prices, limits, wall_clock
        self._recalled: set[Key] = set()

    async def reconcile(self, key: Key) -> Outcome:
        service = self._services.get(key.namespace, key.name)
        forecast = self._forecasts.get(key.namespace, key.name)
        if service is None or service["metadata"].get("deletionTimestamp"):
            self._applier.forget(KIND, key.namespace, key.name)  # It goes with its owner.
            self._recalled.discard(key)
            return Outcome()
        if unread_of(service):
            return Outcome()  # What was foretold last stays.
        if not service["spec"].get("scaling"):
            await self._remove(forecast)
            return Outcome()
        await self._applier.ensure(manifest(service), forecast)
        if forecast is not None:  # Else its own arrival in the cache wakes this key again.
            await self._write_status(service, forecast)
        return Outcome()

    async def _remove(self, forecast: Object | None) -> None:
        """Only what the operator wrote."""
        labels: Mapping[str, Any] = (forecast or {}).get("metadata", {}).get("labels") or {}
        if forecast is not None and labels.get(LABEL_MANAGED_BY) == MANAGED_BY:
            await self._applier.delete(CAPACITY_FORECASTS, forecast)

    async def _write_status(self, service: Object, forecast: Object) -> None:
        self._recall(service, forecast)
        outlook = self._outlook(service)
        generation = int(forecast["metadata"].get("generation", 0))
        old = forecast.get("status") or {}
        if outlook.view is None and old:
            return  # An operator that just started knows nothing newer yet.
        said = [one.dump() for one in conditions(outlook)]
        made = merge_conditions(old.get("conditions"), said, now=self._wall_clock(), generation=generation)
        wanted = status(outlook, generation) | {"conditions": made}
        await self._applier.status(CAPACITY_FORECASTS, forecast, wanted, old)

    def _recall(self, service: Object, forecast: Object) -> None:
        """What the last leader learned of such workers is a better beginning than nothing. Later the status may still
        speak of a Model that the service had before."""
        key = Key.of(forecast)
        if key in self._recalled:
            return
        self._recalled.add(key)
        status = forecast.get("status") or {}
        said, because = status.get("capacity"), str(status.get("capacityReason", ""))
        if said and because.startswith(LEARNED):
            self._capacities.setdefault(self._profile(service), float(said))

    def _profile(self, service: Object) -> str:
        spec, namespace = spec_of(service), service["metadata"]["namespace"]
        return profile_of(namespace, spec, self._models.get(namespace, spec.model))

    def _carries(self, service: Object, entry: Entry | None) -> Carried:
        spec, namespace = spec_of(service), service["metadata"]["namespace"]
        model = self._models.get(namespace, spec.model)
        sla = self._slas.get(namespace, spec.sla) if spec.sla else None
        lengths = entry.lengths if entry else None
        return carried(spec, known_of(spec, model, sla, lengths, self._capacities.get(self._profile(service))))

    def _outlook(self, service: Object) -> Outlook:
        spec = spec_of(service)
        assert spec.scaling is not None, "a service without scaling has no CapacityForecast"
        place = ServiceId(service["metadata"]["namespace"], service["metadata"]["name"])
        entry = self._board.entry(place)
        standing = entry.standing if entry else Standing()
        made = standing.made
        return Outlook(
            view=self._board.view(place),
            forecast=made.forecast if made else None,
            series=made.series if made else None,
            made_s=made.made_s if made else 0.0,
            source=self._board.source.name,
            calibration=standing.calibration,
            lead_time_s=self._cold_starts.lead_time_s(self._profile(service)),
            carries=self._carries(service, entry),
            scaling=spec.scaling,
            desired=(service.get("status") or {}).get("desiredReplicas"),
            prices=self._prices(spec),
            accelerators=spec.accelerator.gpu.count if spec.accelerator.gpu else 1,
            limits=self._limits(Key.of(service)),
        )
