"""The stage of a campaign: services that are whole, clients that ask them, and somebody who looks on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

from e2e.chaos.campaign import Campaign
from e2e.chaos.ground import HOME, Ground
from e2e.chaos.probes import Probe
from e2e.chaos.watch import Onlooker
from e2e.cluster.errors import ClusterError
from kube.client import Client
from kube.connection import Connection

START_LIMIT_S: Final = 240.0


@asynccontextmanager
async def started(
    ground: Ground, services: Sequence[str], out: Path, say: Callable[[str], None]
) -> AsyncIterator[Campaign]:
    """Services that are whole, clients that ask them, and somebody who looks on."""
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        Client(Connection.from_environment(ground.kubectl.kubeconfig)) as client,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        onlooker = Onlooker(client, session, HOME)
        async with asyncio.TaskGroup() as tasks:  # Whoever fails ends the campaign: a blind onlooker would see nothing.
            running = [tasks.create_task(onlooker.run())]
            await onlooker.synced()
            await asyncio.to_thread(ground.kubectl.apply, *(ground.service(name) for name in services))
            await _until_whole(onlooker, services)
            probes = {name: Probe(session, ground.url, ground.key, name) for name in services}
            for probe in probes.values():
                await probe.begin()
                running.append(tasks.create_task(probe.run()))
            yield Campaign(ground, onlooker, client, probes, out, say)
            for task in running:
                task.cancel()


async def _until_whole(onlooker: Onlooker, services: Sequence[str]) -> None:
    deadline_s = time.monotonic() + START_LIMIT_S
    while not all(onlooker.whole(name, 2) for name in services):
        if time.monotonic() > deadline_s:
            missing = [name for name in services if not onlooker.whole(name, 2)]
            raise ClusterError(f"Not whole within {START_LIMIT_S:.0f} s: {', '.join(missing)}.")
        await asyncio.sleep(0.2)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
