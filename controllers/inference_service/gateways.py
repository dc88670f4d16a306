"""The gateways as the history's scraper sees them: those that are ready, and their pages."""

from __future__ import annotations

from controllers.inference_service.admin_ports import AdminPorts
from controllers.inference_service.caches import Caches, gateway_addresses


class ScrapedGateways:
    """A `controllers.history.scraper.Gateways`."""

    def __init__(self, caches: Caches, ports: AdminPorts) -> None:
        self._caches, self._ports = caches, ports

    def addresses(self) -> frozenset[str]:
        return gateway_addresses(self._caches)

    async def metrics(self, gateway: str) -> str | None:
        return await self._ports.gateway_page(gateway)

    async def close(self) -> None:
        await self._ports.close()
