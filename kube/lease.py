"""A Lease as a lock: what a candidate does with what it finds (pure), and the blocking calls that read and write it.

Blocking on purpose: the elector lives in a thread of its own, so that a stalled event loop cannot lose the lease and
a lost lease is noticed while the loop is stalled.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from kube.connection import Connection
from kube.errors import KubeError, NotFound, Unreachable, error_from_response
from kube.resources import LEASES, Object


@dataclass(frozen=True, slots=True)
class Timing:
    """A standby waits `lease_s` after the leader's last sign; a leader that cannot renew for `renew_s` gives up.

    An attempt starts every `retry_s`. One call may take twice that: an API server short of CPU answers late, and giving
    up on its answers early would turn a slow server into a lost leader.
    """

    lease_s: float = 7.0
    renew_s: float = 5.0
    retry_s: float = 1.0

    @property
    def call_timeout_s(self) -> float:
        return 2 * self.retry_s

    def __post_init__(self) -> None:
        if not 0 < self.retry_s < self.renew_s < self.lease_s:
            raise ValueError(f"Lease timing {self}: needs 0 < retry_s < renew_s < lease_s.")


class Step(Enum):
    """What to do about a Lease."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class StoredLease:
    """What the API server has; `holder` is empty when nobody holds it."""

    holder: str
    resource_version: str
    transitions: int

    @classmethod
    def of(cls, lease: Any) -> StoredLease:
        """Raises LookupError, TypeError, ValueError, AttributeError or OverflowError for what is no Lease."""
        spec = lease.get("spec") or {}
        return cls(
            str(spec.get("holderIdentity") or ""),
            str(lease["metadata"]["resourceVersion"]),
            int(spec.get("leaseTransitions") or 0),
        )


@dataclass(frozen=True, slots=True)
class Sighting:
    """A Lease as seen, and since when it has looked exactly so by our own clock (the holder's clock proves nothing)."""

    holder: str
    resource_version: str
    unchanged_since_s: float

    def seen_again(self, holder: str, resource_version: str, now_s: float) -> Sighting:
        same = (holder, resource_version) == (self.holder, self.resource_version)
        return self if same else Sighting(holder, resource_version, now_s)


def next_step(sighting: Sighting | None, me: str, now_s: float, timing: Timing) -> Step:
    """`sighting` is None when there is no Lease."""
    if sighting is None:
        return Step.CREATE
    if sighting.holder == me:
        return Step.RENEW
    expired = now_s - sighting.unchanged_since_s > timing.lease_s
    return Step.TAKE if not sighting.holder or expired else Step.WAIT


def manifest(
    namespace: str, name: str, *, holder: str, timing: Timing, transitions: int, resource_version: str | None
) -> Object:
    """The Lease to send; with a resourceVersion the server refuses it if anybody wrote in between."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {
            "namespace": namespace,
            "name": name,
            **({"resourceVersion": resource_version} if resource_version else {}),
        },
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(timing.lease_s)) if holder else 1,
            "renewTime": now,
            "leaseTransitions": transitions,
        },
    }


class LeaseCalls:
    """Three blocking calls, each socket operation bounded by `timeout_s`. For one thread."""

    def __init__(self, connection: Connection, namespace: str, name: str, timeout_s: float) -> None:
        self._connection, self._namespace, self._name, self._timeout_s = connection, namespace, name, timeout_s
        self._prefix = urlsplit(connection.server).path.rstrip("/")
        self._http: http.client.HTTPConnection | None = None

    def get(self) -> StoredLease | None:
        try:
            return self._call("get", "GET", self._name, None)
        except NotFound:
            return None

    def create(self, lease: Mapping[str, Any]) -> StoredLease:
        return self._call("create", "POST", None, lease)

    def update(self, lease: Mapping[str, Any]) -> StoredLease:
        return self._call("update", "PUT", self._name, lease)

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def _call(self, verb: str, method: str, name: str | None, body: Mapping[str, Any] | None) -> StoredLease:
        what = LEASES.describe(self._namespace, self._name)
        headers = {**self._connection.headers(), "Accept": "application/json", "Content-Type": "application/json"}
        try:
            http_ = self._opened()
            path = self._prefix + LEASES.path(self._namespace, name)
            http_.request(method, path, json.dumps(body) if body else None, headers)
            with http_.getresponse() as response:
                raw = response.read()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise Unreachable(f"{verb} {what}: no answer ({error!r}). It is tried again.") from error
        if response.status >= 300:
            raise error_from_response(verb, what, response.status, raw, response.getheader("Retry-After"))
        try:
            return StoredLease.of(json.loads(raw))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise Unreachable(f"{verb} {what}: the answer is no Lease ({error!r}). It is tried again.") from error

    def _opened(self) -> http.client.HTTPConnection:
        if self._http is None:
            server = urlsplit(self._connection.server)
            if server.hostname is None:
                raise KubeError(f"'{self._connection.server}' names no host.")
            if server.scheme == "http":
                self._http = http.client.HTTPConnection(server.hostname, server.port or 80, timeout=self._timeout_s)
            else:
                self._http = http.client.HTTPSConnection(
                    server.hostname, server.port or 443, timeout=self._timeout_s, context=self._connection.tls
                )
        return self._http
