"""Faults of one worker: injected from outside, with what the machine itself does to processes, memory, links and disks.

Each is a context: inside it the fleet is on its own, after it everything that the harness did is undone.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from controllers.gpu_agent.agent import Agent
from controllers.gpu_agent.sources import RecordedSource
from controllers.gpu_agent.usage import UsageMetrics
from e2e.chaos import host
from e2e.chaos.ground import HOME, recover_node
from e2e.chaos.host import Container, NotThere
from e2e.chaos.scene import Scene
from e2e.chaos.signs import By
from e2e.cluster.errors import CommandFailed
from kube.resources import PODS

Inject = Callable[[Scene], AbstractAsyncContextManager[None]]

CUT_S: Final = 10.0
SLOW_S: Final = 20.0
DELAY_S: Final = 15.0
SHARE_OF_A_CORE: Final = 0.01
LINK_RATE: Final = "16kbit"
BEYOND_SCRATCH_BYTES: Final = 1152 << 20
"""Workers may have 1 GiB."""
FATAL_XIDS: Final = (46, 62, 79, 95, 119)


@asynccontextmanager
async def process_kill(scene: Scene) -> AsyncIterator[None]:
    container = await _hit(scene)
    host.send(container.pids, signal.SIGKILL)
    yield


@asynccontextmanager
async def engine_kill(scene: Scene) -> AsyncIterator[None]:
    container = await _hit(scene)
    host.send(_engine(container), signal.SIGKILL)
    yield


@asynccontextmanager
async def pod_lost(scene: Scene) -> AsyncIterator[None]:
    pod = scene.worker()
    scene.struck(pod.name, [pod])
    scene.gone = lambda: pod.uid not in {one.uid for one in scene.onlooker.workers(scene.service)}
    await scene.client.delete(PODS, HOME, pod.name, grace_period_s=0)
    yield


@asynccontextmanager
async def engine_hang(scene: Scene) -> AsyncIterator[None]:
    container = await _hit(scene)
    pids = _engine(container)
    host.send(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        if container.alive():
            host.send(pids, signal.SIGCONT)


@asynccontextmanager
async def worker_hang(scene: Scene) -> AsyncIterator[None]:
    container = await _hit(scene)
    host.send(container.pids, signal.SIGSTOP)
    try:
        yield
    finally:
        if container.alive():
            host.send(container.pids, signal.SIGCONT)


@asynccontextmanager
async def out_of_memory(scene: Scene) -> AsyncIterator[None]:
    container = await _hit(scene)
    await asyncio.to_thread(host.fill_memory, container)
    yield


@asynccontextmanager
async def slow_worker(scene: Scene) -> AsyncIterator[None]:
    container = await _hit(scene)
    scene.gone = lambda: True
    host.throttle(container, SHARE_OF_A_CORE)
    try:
        await scene.holding(SLOW_S, lambda: not container.alive())
    finally:
        host.throttle(container, None)
    scene.released()
    yield


@asynccontextmanager
async def network_cut(scene: Scene) -> AsyncIterator[None]:
    container = await _hit(scene)
    await _held(scene, host.deaf(container, scene.onlooker.gateway_addresses()), CUT_S)
    yield


@asynccontextmanager
async def network_delay(scene: Scene) -> AsyncIterator[None]:
    container = await _hit(scene)
    await _held(scene, host.narrow(container, LINK_RATE), DELAY_S)
    yield


@asynccontextmanager
async def disk_full(scene: Scene) -> AsyncIterator[None]:
    pod = scene.worker()
    folder: Path = await asyncio.to_thread(scene.ground.host.scratch, pod)
    scene.struck(f"{pod.name} on {pod.node}", [pod])
    with ExitStack() as stack:
        file = await asyncio.to_thread(stack.enter_context, host.filled(folder, BEYOND_SCRATCH_BYTES))
        scene.gone = lambda: not file.exists()
        yield


@asynccontextmanager
async def node_drain(scene: Scene) -> AsyncIterator[None]:
    async with scene.nodes:
        node = scene.worker().node
        on_it = [pod for pod in scene.onlooker.workers(scene.service) if pod.node == node]
        scene.gone = lambda: node not in {pod.node for pod in scene.onlooker.workers(scene.service)}
        scene.struck(node, on_it)
        try:
            selector = f"--pod-selector=foretide.dev/inference-service={scene.service}"
            flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
            with contextlib.suppress(CommandFailed):  # Then workers are left on the node, and it counts as not healed.
                await asyncio.to_thread(scene.ground.kubectl, "drain", node, selector, *flags)
            yield
        finally:
            await scene.kubectl("uncordon", node)


@asynccontextmanager
async def xid_event(scene: Scene) -> AsyncIterator[None]:
    """The GPU agent itself, on a recorded event in the place of the driver's."""
    async with scene.nodes:
        node, xid = scene.worker().node, scene.chance.choice(FATAL_XIDS)
        on_it = [pod for pod in scene.onlooker.pods.items() if pod.node == node]
        recorded = scene.ground.files.folder / "xid.jsonl"
        recorded.write_text(f'{{"after_s": 0, "xid": {xid}, "gpu": "GPU-of-{node}"}}\n')
        scene.gone = lambda: node not in {pod.node for pod in scene.onlooker.workers(scene.service)}
        scene.shows = scene.says(By.NODE, f"{node} quarantined")
        scene.struck(f"XID {xid} on {node}", on_it)
        try:
            await Agent(scene.client, node, RecordedSource(recorded), time.time, UsageMetrics()).step()
            yield
        finally:
            await asyncio.to_thread(recover_node, scene.ground.kubectl, node)


async def _hit(scene: Scene) -> Container:
    """A worker's container, about to be broken; its harm is gone when it is."""
    pod = scene.worker()
    container = await scene.container(pod)
    _engine(container)
    scene.gone = lambda: not container.alive()
    scene.struck(f"{pod.name} on {pod.node}", [pod])
    return container


def _engine(container: Container) -> list[int]:
    """Raises NotThere."""
    if container.engine is None:
        raise NotThere(f"The engine of {container.cgroup} is not running.")
    return [container.engine]


async def _held(scene: Scene, act: AbstractContextManager[None], for_s: float) -> None:
    """Something that ends by itself: nothing of it is left then."""
    scene.gone = lambda: True
    stack = ExitStack()
    await asyncio.to_thread(stack.enter_context, act)
    try:
        await scene.holding(for_s)
    finally:
        await asyncio.to_thread(stack.close)
    scene.released()


OF_WORKERS: Final[dict[str, Inject]] = {
    "process kill": process_kill,
    "engine kill": engine_kill,
    "pod lost": pod_lost,
    "hang of the step loop": engine_hang,
    "hang of the worker": worker_hang,
    "out of memory": out_of_memory,
    "slow worker": slow_worker,
    "network cut": network_cut,
    "network delay": network_delay,
    "disk full": disk_full,
    "node drain": node_drain,
    "XID event": xid_event,
}
