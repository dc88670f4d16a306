"""The agent's flags, checked at start: a wrong one ends the process with a sentence that names it."""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controllers.guard import AddressGuard, Network
from controllers.model_cache.errors import SettingsError
from controllers.model_cache.sources import Access
from controllers.model_cache.store import KEEP_FREE_PERCENT
from crds.fields import quantity

DEFAULT_ROOT: Final = "/var/lib/foretide/models"
DEFAULT_PORT: Final = 8083


@dataclass(frozen=True, slots=True)
class Settings:
    """What one agent needs to know."""

    node_name: str
    root: Path
    cache_bytes: int
    keep_free_percent: int
    access: Access
    host: str
    port: int
    log_level: str
    kubeconfig: Path | None = None


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """From the command line. Raises SettingsError; `--help` and unknown flags end the process as argparse does."""
    given = _parser().parse_args(arguments)
    return Settings(
        node_name=given.node_name,
        root=_absolute("--root", given.root),
        cache_bytes=_bytes(given.cache_bytes),
        keep_free_percent=_percent(given.keep_free_percent),
        access=Access(
            guard=AddressGuard([_network(one) for one in given.allow_private_network]),
            file_roots=tuple(_absolute("--file-root", one) for one in given.file_root),
            insecure_registries=frozenset(given.insecure_registry),
            hf_endpoint=environ.get("HF_ENDPOINT") or None,
        ),
        host=given.host,
        port=given.port,
        log_level=given.log_level,
        kubeconfig=given.kubeconfig,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m controllers.model_cache", description="Keeps verified copies of Models on this node's disk."
    )
    add = parser.add_argument
    add("--node-name", required=True, help="name of the Node object of this node")
    add("--root", default=DEFAULT_ROOT, help="folder of the copies (default: %(default)s)")
    add("--cache-bytes", default="200Gi", help="most bytes of all copies, as a quantity (default: %(default)s)")
    add("--keep-free-percent", type=int, default=KEEP_FREE_PERCENT, help="of the disk of --root (default: %(default)s)")
    add("--file-root", action="append", default=[], help="folder that file:// sources may be in; repeatable")
    add("--allow-private-network", action="append", default=[], metavar="CIDR", help="repeatable")
    add("--insecure-registry", action="append", default=[], metavar="HOST:PORT", help="without TLS; repeatable")
    add("--host", default="", help="address of /metrics and /healthz (default: all)")
    add("--port", type=int, default=DEFAULT_PORT, help="port of /metrics and /healthz (default: %(default)s)")
    add("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    add("--kubeconfig", type=Path, default=None, help="instead of the pod's service account")
    return parser


def _absolute(flag: str, value: str) -> Path:
    path = Path(value)
    if not path.is_absolute():
        raise SettingsError(f"{flag} '{value}' is not an absolute path; write for example {DEFAULT_ROOT}.")
    return path


def _bytes(value: str) -> int:
    try:
        found = int(quantity(value))
    except ValueError as error:
        raise SettingsError(f"--cache-bytes: {error}; write for example 200Gi.") from error
    if found <= 0:
        raise SettingsError("--cache-bytes must be greater than 0; write for example 200Gi.")
    return found


def _percent(value: int) -> int:
    if not 0 <= value < 100:
        raise SettingsError(f"--keep-free-percent is {value}; write 0 to 99, for example {KEEP_FREE_PERCENT}.")
    return value


def _network(value: str) -> Network:
    try:
        return ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        raise SettingsError(f"--allow-private-network: {error}; write for example 10.0.0.0/8.") from error
