"""The two questions asked of other processes: a probe through a gateway, and how many requests a worker holds.

`AdminPorts` is the seam; `HttpAdminPorts` asks over HTTP. No answer is an answer too: nothing here raises for a peer
that is slow, gone or talks nonsense.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp
import orjson

from crds import contract

PROBE_TIMEOUT_S: Final = 10.0
"""A probe queues behind requests of clients."""
SCRAPE_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What one gateway replica said."""

    ok: bool
    reason: str = "ProbeAnswered"
    message: str = ""


class AdminPorts(Protocol):
    """Asks gateways and workers."""

    async def probe(self, gateway: str, namespace: str, service: str) -> ProbeAnswer:
        """One request of one token, along the path that a client's would take through this gateway."""
        ...

    async def requests_held(self, worker: str) -> int | None:
        """Requests running and waiting in the worker at this address; None when it does not say."""
        ...

    async def close(self) -> None:
        """Ends connections."""
        ...


class HttpAdminPorts:
    """Over HTTP, on the ports of the contract."""

    def __init__(self, session: Callable[[], aiohttp.ClientSession] = aiohttp.ClientSession) -> None:
        self._make = session
        self._session: aiohttp.ClientSession | None = None

    async def probe(self, gateway: str, namespace: str, service: str) -> ProbeAnswer:
        path = contract.GATEWAY_PATH_PROBE.format(namespace=namespace, service=service)
        url = f"http://{_host(gateway)}:{contract.GATEWAY_ADMIN_PORT}{path}"
        try:
            async with self._open().post(url, timeout=aiohttp.ClientTimeout(PROBE_TIMEOUT_S)) as response:
                return _answer(gateway, response.status, await response.read())
        except TimeoutError:
            return _failed(gateway, f"no answer within {PROBE_TIMEOUT_S:g} s")
        except aiohttp.ClientError:
            return _failed(gateway, "cannot be reached")

    async def requests_held(self, worker: str) -> int | None:
        url = f"http://{_host(worker)}:{contract.WORKER_ADMIN_PORT}{contract.WORKER_PATH_METRICS}"
        try:
            async with self._open().get(url, timeout=aiohttp.ClientTimeout(SCRAPE_TIMEOUT_S)) as response:
                return held_requests(await response.text()) if response.status == 200 else None
        except (TimeoutError, aiohttp.ClientError, UnicodeDecodeError):
            return None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = self._make()
        return self._session


def held_requests(page: str) -> int | None:
    """Sum of running and waiting requests on a metrics page; None when the page has neither."""
    found = [
        _value(line)
        for line in page.splitlines()
        if line.startswith((contract.METRIC_RUNNING, contract.METRIC_WAITING)) and _is_sample(line)
    ]
    values = [value for value in found if value is not None]
    return round(sum(values)) if values else None


def _is_sample(line: str) -> bool:
    """Not a longer name that begins the same."""
    name = line.split("{", 1)[0].split(" ", 1)[0]
    return name in (contract.METRIC_RUNNING, contract.METRIC_WAITING)


def _value(line: str) -> float | None:
    after = line.rsplit("}", 1)[-1] if "}" in line else line.partition(" ")[2]
    words = after.split()
    try:
        value = float(words[0]) if words else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 1e9 else None


def _answer(gateway: str, status: int, body: bytes) -> ProbeAnswer:
    if status == 200:
        return ProbeAnswer(True)
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("message"), str):
        return _failed(gateway, f"answered {status}")
    reason = said.get("reason")
    is_word = isinstance(reason, str) and reason.isalnum()
    return ProbeAnswer(False, reason if isinstance(reason, str) and is_word else "ProbeFailed", said["message"])


def _failed(gateway: str, what: str) -> ProbeAnswer:
    return ProbeAnswer(False, "ProbeFailed", f"Gateway {gateway}: {what}.")


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
