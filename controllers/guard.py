"""Which addresses a URL of a user may lead to: public ones, and the networks an administrator allowed.

The check is made on the very address that is then connected to, for each redirect again, so neither a redirect nor a
name that resolves differently the second time (DNS rebinding) leads inside. Host names are never trusted.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 60.0
LOOKUPS: Final = 8
"""At once, of one resolver."""


class AddressRefused(OSError):
    """The name leads to an address that is not public and not allowed."""


MODELS_ADVICE: Final = (
    "If Models may be fetched from there, the administrator allows its network in the Helm value"
    " modelCache.allowPrivateNetworks."
)


class AddressGuard:
    """Says yes or no to addresses. Immutable. `advice` is what a refusal tells to do."""

    def __init__(self, allowed: Sequence[Network] = (), advice: str = MODELS_ADVICE) -> None:
        self._allowed, self._advice = tuple(allowed), advice

    def check(self, host: str, address: str) -> None:
        """Raises AddressRefused unless `address`, which `host` resolved to, may be connected to."""
        found = ipaddress.ip_address(address.split("%", 1)[0])
        inner = _embedded(found)
        if all(self._may(one) for one in (found, inner) if one is not None):
            return
        raise AddressRefused(f"'{host}' leads to {found}, which is not a public address. {self._advice}")

    def check_literal(self, host: str) -> None:
        """Raises AddressRefused for an IP literal that is not allowed: aiohttp asks no resolver about those."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return
        self.check(host, host)

    def _may(self, address: Address) -> bool:
        if any(address.version == network.version and address in network for network in self._allowed):
            return True
        return address.is_global and not address.is_multicast

    def resolve(self, host: str, port: int) -> list[Any]:
        """`getaddrinfo` whose every answer may be connected to. Blocking."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for _, _, _, _, where in found:
            self.check(host, str(where[0]))
        return found


def _embedded(address: Address) -> Address | None:
    """The IPv4 address inside an IPv6 one, for the forms that gateways translate."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.teredo[1] if address.teredo else None


class GuardedResolver(AbstractResolver):
    """For aiohttp, which connects to exactly the addresses returned here; IP literals need `check_literal`."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        # Its own: a name server that does not answer holds threads for long after their look-ups were given up, and
        # the loop's threads are waited for at its end.
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, self._guard.resolve, host, port)
        return [
            ResolveResult(
                hostname=host,
                host=str(where[0]),
                port=port,
                family=family_,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for family_, _, proto, _, where in found
        ]

    async def close(self) -> None:
        """Waits for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedAdapter(HTTPAdapter):
    """For libraries that use `requests`: mount it for http:// and https://."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager = _guarded_manager(self._guard, kwargs)

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        # A proxy would resolve and connect in our place, where nothing is checked.
        kwargs["proxies"] = {}
        kwargs["timeout"] = kwargs.get("timeout") or (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        return super().send(request, *args, **kwargs)


def _guarded_manager(guard: AddressGuard, kwargs: dict[str, Any]) -> PoolManager:
    def connect(connection: HTTPConnection) -> socket.socket:
        last: OSError | None = None
        for family, kind, proto, _, where in guard.resolve(connection.host, connection.port or 0):
            sock = socket.socket(family, kind, proto)
            sock.settimeout(CONNECT_TIMEOUT_S)
            try:
                sock.connect(where)
            except OSError as error:
                sock.close()
                last = error
            else:
                return sock
        raise last or OSError(f"'{connection.host}' has no address.")

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return connect(self)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return connect(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    manager = PoolManager(**{key: value for key, value in kwargs.items() if key in ("num_pools", "maxsize", "block")})
    manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return manager
