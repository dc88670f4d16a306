"""The caches that the dashboard reads; others run them."""

from __future__ import annotations

from dataclasses import dataclass

from controllers.history.interface import ServiceId
from kube.informer import Informer
from kube.resources import Object


@dataclass(frozen=True, slots=True)
class Caches:
    """A forecast has the name of its service."""

    services: Informer[Object]
    forecasts: Informer[Object]
    slas: Informer[Object]
    tenants: Informer[Object]
    pools: Informer[Object]
    policies: Informer[Object]

    def forecast_of(self, service: ServiceId) -> Object | None:
        return self.forecasts.get(service.namespace, service.name)

    def forecast_by_service(self) -> dict[tuple[str, str], Object]:
        return {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in self.forecasts.items()}

    def sla_of(self, service: Object) -> Object | None:
        name = service["spec"].get("sla")
        return None if name is None else self.slas.get(service["metadata"]["namespace"], name)
