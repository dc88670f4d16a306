"""Services on slices of a GPUPool `gpus`, over the API server in memory: what tests about devices have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from controllers.settings import Settings
from kube.resources import GPU_POOLS, Object
from tests.controllers.inference_service.harness import Kubernetes, MemoryKubelet, Operator, ground, put, until
from tests.fakes import FakeClient

NS: Final = "demo"
SETTINGS: Final = Settings.model_validate({"images": {"worker_gpu": "foretide/worker-gpu:dev"}})


@dataclass
class Pooled:
    """An operator that runs; `kubernetes` and `kubelet` act while something is waited for."""

    client: FakeClient
    operator: Operator
    kubernetes: Kubernetes
    kubelet: MemoryKubelet

    async def put_pool(self, status: dict[str, Any] | None = None, **spec: Any) -> None:
        obj: Object = {"apiVersion": "foretide.dev/v1alpha1", "kind": "GPUPool", "metadata": {"name": "gpus"}}
        await put(self.client, GPU_POOLS, obj | {"spec": {"nodeSelector": {"pool": "gpus"}, **spec}}, status)

    async def wait(self, condition: Callable[[], object], what: str) -> None:
        await until(condition, what, self.kubernetes.act, self.kubelet.act)


World = TypeVar("World", bound=Pooled)


@asynccontextmanager
async def pooled(kind: type[World], client: FakeClient) -> AsyncIterator[World]:
    await ground(client, NS)
    async with Operator(client, settings=SETTINGS).running() as operator:
        yield kind(client, operator, Kubernetes(client, NS), MemoryKubelet(client, NS))
