"""The questions asked of other processes: probes through gateways, what waits in them, what they and workers count.

`AdminPorts` is the seam; `HttpAdminPorts` asks over HTTP. No answer is an answer too: nothing here raises for a peer
that is slow, gone or talks nonsense.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp
import orjson

from controllers.history.interface import ServiceId
from controllers.inference_service.quality_report import Answers, answers_in
from controllers.inference_service.worker_profile import WorkerProfile, profile_in
from controllers.inference_service.worker_report import WorkerReport, report_in
from controllers.plans.snapshot import Demanded
from crds import contract

PROBE_TIMEOUT_S: Final = 10.0
"""A probe queues behind requests of clients."""
SCRAPE_TIMEOUT_S: Final = 1.0
PROFILE_TIMEOUT_S: Final = 150.0
"""Longer than a worker takes at most."""
ASK_TIMEOUT_S: Final = 35.0
"""A worker of a new revision captures graphs at its first question."""
PAGE_TIMEOUT_S: Final = 5.0
"""A gateway's page has a line for each service."""


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

    async def worker_report(self, worker: str) -> WorkerReport | None:
        """The load of the worker at this address; None when it does not say."""
        ...

    async def worker_answers(self, worker: str) -> Answers | None:
        """What the answers of the worker at this address were like; None when it does not say."""
        ...

    async def worker_profile(self, worker: str) -> WorkerProfile | None:
        """Has the worker at this address measure itself, which takes seconds; None when it does not."""
        ...

    async def demand(self, gateway: str) -> dict[ServiceId, Demanded] | None:
        """What clients ask of services that may sleep, in this gateway; None when it does not say."""
        ...

    async def endpoints(self, gateway: str) -> bytes | None:
        """What this gateway holds against workers, as it says it; None when it does not answer."""
        ...

    async def gateway_page(self, gateway: str) -> str | None:
        """The metrics page of this gateway; None when it does not answer."""
        ...

    async def ask_revision(
        self, gateway: str, namespace: str, service: str, revision: str, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        """A completion by a worker of this revision; None when there is none."""
        ...

    async def close(self) -> None:
        """Ends connections."""
        ...


def _session() -> aiohttp.ClientSession:
    """Without a bound of its own, which is that of who asks: questions that hang must not make others wait."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


class HttpAdminPorts:
    """Over HTTP, on the ports of the contract."""

    def __init__(self, session: Callable[[], aiohttp.ClientSession] = _session) -> None:
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

    async def worker_report(self, worker: str) -> WorkerReport | None:
        url = f"http://{_host(worker)}:{contract.WORKER_ADMIN_PORT}{contract.WORKER_PATH_METRICS}"
        page = await self._read(url, SCRAPE_TIMEOUT_S)
        return None if page is None else report_in(page.decode("utf-8", "replace"))

    async def worker_answers(self, worker: str) -> Answers | None:
        url = f"http://{_host(worker)}:{contract.WORKER_ADMIN_PORT}{contract.WORKER_PATH_METRICS}"
        page = await self._read(url, PAGE_TIMEOUT_S)
        return None if page is None else answers_in(page.decode("utf-8", "replace"))

    async def worker_profile(self, worker: str) -> WorkerProfile | None:
        url = f"http://{_host(worker)}:{contract.WORKER_ADMIN_PORT}{contract.WORKER_PATH_PROFILE}"
        try:
            async with self._open().post(url, timeout=aiohttp.ClientTimeout(PROFILE_TIMEOUT_S)) as response:
                return profile_in(await response.read()) if response.status == 200 else None
        except (TimeoutError, aiohttp.ClientError):
            return None

    async def demand(self, gateway: str) -> dict[ServiceId, Demanded] | None:
        url = f"http://{_host(gateway)}:{contract.GATEWAY_ADMIN_PORT}{contract.GATEWAY_PATH_DEMAND}"
        body = await self._read(url, SCRAPE_TIMEOUT_S)
        return None if body is None else demand_in(body)

    async def endpoints(self, gateway: str) -> bytes | None:
        url = f"http://{_host(gateway)}:{contract.GATEWAY_ADMIN_PORT}{contract.GATEWAY_PATH_ENDPOINTS}"
        return await self._read(url, SCRAPE_TIMEOUT_S)

    async def gateway_page(self, gateway: str) -> str | None:
        url = f"http://{_host(gateway)}:{contract.GATEWAY_ADMIN_PORT}{contract.GATEWAY_PATH_METRICS}"
        page = await self._read(url, PAGE_TIMEOUT_S)
        return None if page is None else page.decode("utf-8", "replace")

    async def ask_revision(
        self, gateway: str, namespace: str, service: str, revision: str, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        path = contract.GATEWAY_PATH_ASK.format(namespace=namespace, service=service, revision=revision)
        url = f"http://{_host(gateway)}:{contract.GATEWAY_ADMIN_PORT}{path}"
        question = orjson.dumps({"model": f"{namespace}/{service}", **body})
        timeout = aiohttp.ClientTimeout(ASK_TIMEOUT_S)
        try:
            async with self._open().post(url, data=question, timeout=timeout) as response:
                said = orjson.loads(await response.read()) if response.status == 200 else None
        except (TimeoutError, aiohttp.ClientError, orjson.JSONDecodeError):
            return None
        return said if isinstance(said, dict) else None

    async def _read(self, url: str, timeout_s: float) -> bytes | None:
        try:
            async with self._open().get(url, timeout=aiohttp.ClientTimeout(timeout_s)) as response:
                return await response.read() if response.status == 200 else None
        except (TimeoutError, aiohttp.ClientError):
            return None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = self._make()
        return self._session


def demand_in(body: bytes) -> dict[ServiceId, Demanded] | None:
    """Of a gateway's answer; None when it is none. Entries that make no sense are left out."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict):
        return None
    found: dict[ServiceId, Demanded] = {}
    for name, entry in said.items():
        namespace, slash, service = str(name).partition("/")
        demand = _demanded(entry)
        if slash and demand is not None:
            found[ServiceId(namespace, service)] = demand
    return found


def _demanded(entry: object) -> Demanded | None:
    if not isinstance(entry, dict):
        return None
    open_, waiting, idle_s = entry.get("open"), entry.get("waiting"), entry.get("idle_s")
    if type(open_) is not int or type(waiting) is not int or not isinstance(idle_s, int | float):
        return None
    return Demanded(open_, waiting, float(idle_s)) if open_ >= waiting >= 0 <= idle_s else None


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
