"""A process' own HTTP port, for the kubelet and Prometheus: how it opens, how it ends, the forms of its answers."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod

from aiohttp import web


class PortUnusable(OSError):
    """Nothing can listen there: another process does, or the address is none of this machine."""


class AdminPort(ABC):
    """Serves until `stop`. Port 0 takes a free one; `port` tells which."""

    def __init__(self, host: str, port: int) -> None:
        """`host` is empty for all addresses."""
        self._host, self.port = host, port
        self._runner: web.AppRunner | None = None

    @abstractmethod
    def app(self) -> web.Application:
        """What is served."""

    async def start(self) -> None:
        """Raises PortUnusable."""
        self._runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host or None, self.port).start()
        except (OSError, OverflowError) as error:
            await self.stop()
            where = f"port {self.port} of {self._host or 'all addresses'}"
            found = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise PortUnusable(f"Nothing can be served at {where}: {found}. Choose another port or host.") from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


def metrics_page(body: bytes) -> web.Response:
    """Of a page in Prometheus' text format."""
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4"})


def verdict(problems: list[str]) -> web.Response:
    """503 with a line for each problem, else 200 and `ok`."""
    return web.Response(status=503 if problems else 200, text="\n".join(problems or ["ok"]) + "\n")
