"""`python3 -m controllers.model_cache`: one node's agent, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import sys
import time
from typing import Final

from controllers.model_cache.admin import Admin
from controllers.model_cache.agent import Agent
from controllers.model_cache.errors import SettingsError
from controllers.model_cache.report import Reporter
from controllers.model_cache.settings import Settings, parse
from controllers.model_cache.store import Store
from controllers.model_cache.views import Views
from controllers.runtime.logs import configure
from kube.client import Client
from kube.connection import Connection
from kube.errors import LoginFailed

log = logging.getLogger("foretide.model_cache")
BAD_SETTINGS: Final = 2


async def serve(settings: Settings) -> None:
    """Until cancelled, or until a part ends, which ends the process."""
    async with Client(Connection.from_environment(settings.kubeconfig)) as client:
        views = Views.following(client, settings.node_name)
        reporter = Reporter(client, views, time.monotonic)
        agent = Agent(
            views,
            Store(settings.root, settings.keep_free_percent),
            reporter,
            settings.access,
            settings.cache_bytes,
            time.monotonic,
            time.time,
            random.Random(),
        )
        admin = Admin(agent, views, time.monotonic, settings.host, settings.port)
        await admin.start()
        log.info("The node agent of '%s' serves '%s'.", settings.node_name, settings.root)
        try:
            async with asyncio.TaskGroup() as group:
                for informer in views.informers().values():
                    group.create_task(informer.run())
                group.create_task(agent.run())
        finally:
            await admin.stop()


async def run(settings: Settings) -> None:
    """`serve`, ended by SIGTERM or SIGINT."""
    serving = asyncio.ensure_future(serve(settings))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        log.info("The node agent of '%s' ends; downloads are continued at its next start.", settings.node_name)


def main() -> int:
    """Exit status of the process."""
    try:
        settings = parse(sys.argv[1:])
        configure(settings.log_level)
        asyncio.run(run(settings))
    except (SettingsError, LoginFailed) as error:
        print(error, file=sys.stderr)
        return BAD_SETTINGS
    return 0


if __name__ == "__main__":
    sys.exit(main())
