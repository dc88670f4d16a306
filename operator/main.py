"""The operator's process: flags, log, login, and the loop. No decision about services is made here.

Flags win over FORETIDE_* environment variables, which win over the defaults.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import uuid
from pathlib import Path


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="foretide-operator", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--config", type=Path, default=_env("CONFIG"), help="configuration file, YAML or JSON (FORETIDE_CONFIG)"
    )
    parser.add_argument("--kubeconfig", type=Path, default=None, help="default: KUBECONFIG, else the pod's account")
    parser.add_argument("--context", default=_env("CONTEXT"), help="context of the kubeconfig (FORETIDE_CONTEXT)")
    parser.add_argument(
        "--log-level",
        type=_level,
        default=_env("LOG_LEVEL", "info"),
        help="debug, info, warning or error (FORETIDE_LOG_LEVEL)",
    )
    parser.add_argument("--host", default=_env("HOST", "0.0.0.0"), help="address to listen on (FORETIDE_HOST)")
    parser.add_argument(
        "--port", type=int, default=_env("PORT", "8080"), help="/metrics, /healthz, /readyz (FORETIDE_PORT)"
    )
    parser.add_argument(
        "--manage",
        type=_managed,
        metavar="{services,gpu-pools}",
        default=_env("MANAGE", "services"),
        help="gpu-pools is a process of its own: it alone may write Nodes (FORETIDE_MANAGE)",
    )
    parser.add_argument(
        "--lease-name", default=_env("LEASE_NAME", "foretide-operator"), help="name of the Lease (FORETIDE_LEASE_NAME)"
    )
    parser.add_argument(
        "--identity",
        default=_env("IDENTITY", socket.gethostname()),
        help="who leads, as the Lease shows it; the pod's name (FORETIDE_IDENTITY)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    # After the flags: a wrong one, and --help, need not wait a second for Kopf.
    from controllers.build import build
    from controllers.gpu_pool.build import build_pools
    from controllers.history.interface import HistoryError
    from controllers.runtime import logs
    from controllers.runtime.loop import Options, operate
    from controllers.runtime.port import PortUnusable
    from controllers.settings import SettingsError, load_settings
    from kube.connection import Connection
    from kube.errors import LoginFailed

    logs.configure(options.log_level)
    try:
        settings = load_settings(options.config)
        connection = Connection.from_environment(options.kubeconfig, options.context)
    except (SettingsError, LoginFailed) as error:
        print(f"foretide-operator: {error}", file=sys.stderr)
        return 2
    process = Options(
        # A restarted pod keeps its name; the random part keeps it from taking its earlier life's lease for its own.
        identity=f"{options.identity}_{uuid.uuid4().hex[:8]}",
        host=options.host,
        port=options.port,
        lease_name=options.lease_name,
    )
    try:
        return asyncio.run(
            operate(connection, settings, process, build_pools if options.manage == "gpu-pools" else build)
        )
    except (HistoryError, PortUnusable) as error:
        print(f"foretide-operator: {error}", file=sys.stderr)
        return 2


def _level(text: str) -> str:
    if text not in ("debug", "info", "warning", "error"):
        raise argparse.ArgumentTypeError(f"'{text}' is no log level: debug, info, warning or error.")
    return text


def _managed(text: str) -> str:
    # Not `choices`: argparse holds no default to them, and FORETIDE_MANAGE is one.
    if text not in ("services", "gpu-pools"):
        raise argparse.ArgumentTypeError(f"'{text}' is nothing to manage: services or gpu-pools.")
    return text


def _env(name: str, default: str | None = None) -> str | None:
    return os.environ.get(f"FORETIDE_{name}", default)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # Kopf's thread may still be closing its streams; there is nothing to wait for.
