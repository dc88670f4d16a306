"""Everything that stands before a campaign begins: control plane, CRDs, the chart's account and rights, one node.

The operator acts under its own service account with the rights that the chart gives it, and no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.control_plane.api import install_crds
from e2e.cluster.controlplane import ControlPlane, Settings
from e2e.faults.lives import Lives
from e2e.faults.proxy import Fault, Proxy
from e2e.faults.standin import StandIn, node
from e2e.faults.truth import Truth
from e2e.install import SYSTEM
from e2e.rights import rendered
from kube.client import Client
from kube.connection import Connection
from kube.errors import AlreadyExists, NotFound, Unreachable
from kube.resources import NAMESPACES, NODES, Object, Resource, resource_of

ACCOUNT: Final = "foretide-operator"
PATIENCE: Final = 60
"""Attempts."""
_RBAC: Final = "rbac.authorization.k8s.io"


@dataclass
class Ground:
    """What a campaign acts on and looks at."""

    client: Client
    """The administrator's, past the proxy."""
    proxy: Proxy
    lives: Lives
    truth: Truth

    @contextlib.contextmanager
    def fault(self, fault: Fault) -> Iterator[Fault]:
        """Set inside this block."""
        self.proxy.fault = fault
        try:
            yield fault
        finally:
            self.proxy.fault = Fault()

    async def put(self, *objects: Object) -> None:
        """As a person with kubectl would."""
        for one in objects:
            await patiently(partial(self.client.apply, resource_of(one), one, field_manager="a-person"))

    async def make_namespace(self, name: str) -> None:
        """One that exists is as good."""
        with contextlib.suppress(AlreadyExists):
            await patiently(partial(self.client.create, NAMESPACES, {"metadata": {"name": name}}))

    async def take_away(self, resource: Resource, namespace: str | None, name: str) -> None:
        """One that is gone is as good."""
        with contextlib.suppress(NotFound):
            await patiently(partial(self.client.delete, resource, namespace, name))


async def patiently(act: Callable[[], Awaitable[Any]]) -> None:
    """Again while the API server cannot be reached: a machine that is busy is no fault that was injected."""
    for left in range(PATIENCE, -1, -1):
        try:
            await act()
        except Unreachable:
            if not left:
                raise
            await asyncio.sleep(1.0)
        else:
            return


@asynccontextmanager
async def ground() -> AsyncIterator[Ground]:
    """A control plane for itself, gone with the block. The operator is not begun yet."""
    with (
        TemporaryDirectory(prefix="foretide-faults-") as name,
        ControlPlane(Path(name) / "plane", Settings(controller_manager=True)) as plane,
    ):
        async with _standing(plane, Path(name)) as made:
            yield made


@asynccontextmanager
async def _standing(plane: ControlPlane, folder: Path) -> AsyncIterator[Ground]:
    account = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
    upstream = Connection.from_environment(await asyncio.to_thread(plane.client_kubeconfig, account))
    async with (
        Client(Connection.from_environment(plane.kubeconfig)) as client,
        Proxy(upstream) as proxy,
        Lives(_kubeconfig(folder, proxy.url), folder) as lives,
    ):
        await _prepare(client)
        truth, standin = Truth(client), StandIn(client)
        async with _running(truth.run(), standin.run()):
            await truth.synced()
            yield Ground(client, proxy, lives, truth)


async def _prepare(client: Client) -> None:
    await client.create(NAMESPACES, {"metadata": {"name": SYSTEM}})
    await install_crds(client)
    await client.create(NODES, node())
    for one in await asyncio.to_thread(_rights):
        await client.create(_rbac_resource(one), one)


def _rights() -> list[Object]:
    """The chart's roles and bindings of the operator's account."""
    return [one for one in rendered() if one["apiVersion"].startswith(_RBAC) and one["metadata"]["name"] == ACCOUNT]


def _rbac_resource(obj: Object) -> Resource:
    kind = str(obj["kind"])
    return Resource(_RBAC, "v1", f"{kind.lower()}s", kind, namespaced=not kind.startswith("Cluster"))


def _kubeconfig(folder: Path, url: str) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": url}}],
        "users": [{"name": "operator", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
        "current-context": "proxy",
    }
    path = folder / "through-the-proxy.json"
    path.write_text(json.dumps(content))
    return path


@asynccontextmanager
async def _running(*work: Awaitable[None]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
