"""Talking to the API server in bulk, and asking it how much it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

import yaml

from benchmarks.control_plane.exposition import Samples, parse
from kube.api import EventKind
from kube.client import Client
from kube.connection import Connection
from kube.resources import Object, Resource, resource_of

T = TypeVar("T")
AT_ONCE: Final = 24
WRITING_VERBS: Final = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE"})
LEASES: Final = "leases"
CRDS: Final = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False)
CRD_MANIFESTS: Final = Path(__file__).resolve().parents[2] / "crds" / "manifests"
ESTABLISHED_S: Final = 30.0


async def each(items: Iterable[T], act: Callable[[T], Awaitable[object]], at_once: int = AT_ONCE) -> None:
    """`act` on all items, some at once; the first failure ends it."""
    left = iter(items)

    async def work() -> None:
        for item in left:
            await act(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


async def create_all(client: Client, objects: Iterable[Object]) -> None:
    await each(objects, lambda one: client.create(resource_of(one), one))


async def install_crds(client: Client) -> None:
    """Returns when the API server serves our kinds."""
    manifests = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(CRD_MANIFESTS.glob("*.yaml"))]
    await each(manifests, lambda one: client.create(CRDS, one))
    names = {manifest["metadata"]["name"] for manifest in manifests}
    async with asyncio.timeout(ESTABLISHED_S):
        async with contextlib.aclosing(client.watch(CRDS, resource_version="0")) as events:
            async for event in events:
                if event.kind is not EventKind.BOOKMARK and _is_established(event.obj):
                    names.discard(event.obj["metadata"]["name"])
                if not names:
                    return


def _is_established(crd: Object) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


class Writes(Counter[str]):
    """Writing requests by resource."""

    @property
    def leases(self) -> int:
        """Renewals of leadership: how an operator says that it lives."""
        return self[LEASES]

    @property
    def without_leases(self) -> int:
        return self.total() - self.leases

    @property
    def objects(self) -> int:
        """Without leases and Events: what is done, not what is told."""
        return self.without_leases - self["events"]

    def __str__(self) -> str:
        return ", ".join(f"{count} {resource}" for resource, count in self.most_common()) or "none"


async def writes_so_far(connection: Connection) -> Writes:
    """Writing requests that the API server has answered, by resource. Its own are among them."""
    text = await asyncio.to_thread(_metrics, connection)
    found = Writes()
    for labels, value in parse(text, "apiserver_request_total").get("apiserver_request_total", ()):
        if labels.get("verb") in WRITING_VERBS and not _is_servers_own(labels):
            part = f"/{labels['subresource']}" if labels.get("subresource") else ""
            found[labels["resource"] + part] += int(value)
    return found


def since(before: Writes, after: Writes) -> Writes:
    return Writes({resource: count - before[resource] for resource, count in after.items() if count > before[resource]})


def _is_servers_own(labels: dict[str, str]) -> bool:
    """Status of CRDs and API services, priority levels and its identity lease are the server's own bookkeeping."""
    return labels.get("group", "") in ("apiextensions.k8s.io", "apiregistration.k8s.io", "flowcontrol.apiserver.k8s.io")


def _metrics(connection: Connection) -> str:
    request = urllib.request.Request(f"{connection.server}/metrics", headers=connection.headers())
    with urllib.request.urlopen(request, timeout=30, context=connection.tls) as answer:
        return str(answer.read().decode())


def samples_of(url: str) -> Samples:
    """All samples of a Prometheus endpoint; raises OSError while nobody answers."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return parse(answer.read().decode())
