"""`python3 -m gateway`: settings, the loop, signals, the exit code. Nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import uvloop

from crds.log_lines import JsonFormatter
from gateway.catalog import CatalogSource
from gateway.errors import SettingsError
from gateway.processes import Processes
from gateway.service import Gateway
from gateway.settings import Settings, parse
from gateway.static import StaticSource, load
from gateway.watch import WatchSource
from gateway.zone import zone_of
from kube.client import Client
from kube.connection import Connection
from kube.errors import LoginFailed


@contextlib.asynccontextmanager
async def source_of(settings: Settings) -> AsyncIterator[tuple[CatalogSource, str | None]]:
    """Where the catalog comes from, and our own zone where it is known."""
    if settings.static is not None:
        yield StaticSource(load(settings.static)), settings.zone
        return
    async with Client(Connection.from_environment(settings.kubeconfig)) as client:
        yield WatchSource(client, settings.system_namespace), settings.zone or await zone_of(client, settings.node)


async def serve(settings: Settings) -> int:
    """The exit code: 0 after a drain, 1 when something ended that must not."""
    loop = asyncio.get_running_loop()
    async with source_of(settings) as (source, zone):
        gateway = Gateway(replace(settings, zone=zone), source)
        asked = asyncio.Event()

        def on_signal() -> None:
            if asked.is_set():
                gateway.cut()  # whoever asks twice does not want to wait
            asked.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        await gateway.start()
        # What lives as long as the process need not be searched for garbage, and requests make next to none in cycles.
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        signalled, failed = loop.create_task(asked.wait()), loop.create_task(gateway.failed())
        await asyncio.wait((signalled, failed), return_when=asyncio.FIRST_COMPLETED)
        code = 1 if failed.done() else 0
        signalled.cancel()
        failed.cancel()
        if code == 0:
            await gateway.drain()
        await gateway.stop()
    return code


def main() -> int:
    try:
        settings = parse()
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(level=settings.log_level, handlers=[handler])
        if settings.processes > 1 and settings.inherited is None:
            return uvloop.run(Processes(settings, sys.argv[1:]).run())
        return uvloop.run(serve(settings))
    except (SettingsError, LoginFailed) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
