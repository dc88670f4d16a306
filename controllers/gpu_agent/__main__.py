"""`python -m controllers.gpu_agent`: one a GPU node. Flags, log, login, and the loop."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from controllers.gpu_agent.admin import DEFAULT_PORT, Admin
from controllers.gpu_agent.agent import Agent
from controllers.gpu_agent.sources import NvmlSource, RecordedSource, SourceError
from controllers.gpu_agent.usage import UsageMetrics
from controllers.runtime.logs import configure
from kube.client import Client
from kube.connection import Connection
from kube.errors import LoginFailed


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="foretide-gpu-agent", description=__doc__, allow_abbrev=False)
    parser.add_argument("--node-name", required=True, help="the Node that is written")
    parser.add_argument("--recorded", type=Path, help="file of recorded events, in the place of the driver")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"/metrics and /healthz; default {DEFAULT_PORT}")
    parser.add_argument("--kubeconfig", type=Path, help="default: KUBECONFIG, else the pod's account")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace) -> None:
    """Until SIGTERM or SIGINT. Raises SourceError, LoginFailed."""
    source = RecordedSource(options.recorded) if options.recorded else NvmlSource()
    connection = Connection.from_environment(options.kubeconfig, None)
    async with Client(connection) as client:
        metrics = UsageMetrics()
        agent = Agent(client, options.node_name, source, time.time, metrics)
        admin = Admin(agent, source, metrics, port=options.port)
        await admin.start()
        running = asyncio.ensure_future(agent.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        try:
            await running
        except asyncio.CancelledError:
            return
        finally:
            await admin.stop()


def main() -> int:
    """Exit status of the process."""
    options = parse(sys.argv[1:])
    configure(options.log_level)
    try:
        asyncio.run(serve(options))
    except (SourceError, LoginFailed) as error:
        print(f"foretide-gpu-agent: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
