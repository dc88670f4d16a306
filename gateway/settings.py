"""The flags, checked when the gateway starts. What is wrong is refused here, loudly, and never defaulted away."""

from __future__ import annotations

import argparse
import ipaddress
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from crds.contract import GATEWAY_ADMIN_PORT, GATEWAY_HTTP_PORT, GATEWAY_PEER_PORT
from gateway.admission.gate import QueueBounds
from gateway.asked import RequestLimits
from gateway.errors import SettingsError
from gateway.http1.limits import MIB, Limits
from gateway.streams.journal import StreamLimits

LEAST_BYTES_PER_S = 1024
SECRET_VARIABLE = "FORETIDE_GATEWAY_SECRET"
"""Environment variable by which sibling processes share a secret of their own where no keyring has one."""


@contextmanager
def listening(flag: str, host: str, port: int) -> Iterator[None]:
    """Raises SettingsError where what is begun within cannot have its port."""
    try:
        yield
    except OSError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error  # uvloop's own has no number
        found = os.strerror(cause.errno) if cause.errno else str(error)
        raise SettingsError(f"{flag} {port}, --host {host}: cannot listen: {found}.") from error


@dataclass(frozen=True, slots=True)
class Inherited:
    """Sockets, bound already, of a process that shares its port with siblings."""

    http: int
    admin: int
    peer: int
    siblings: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class PickerSettings:
    """Where another proxy asks which worker gets a request."""

    port: int
    certificate: tuple[Path, Path] | None = None
    """Certificate and key; plain text without."""


@dataclass(frozen=True, slots=True)
class TracingSettings:
    endpoint: str
    """Base URL of a collector that takes OTLP over HTTP."""
    share: float
    """Of the requests that bring no `traceparent`."""


@dataclass(frozen=True, slots=True)
class Settings:
    host: str
    port: int
    admin_port: int
    static: Path | None
    """Serve what this file says instead of what a cluster says."""
    kubeconfig: Path | None
    system_namespace: str
    zone: str | None
    """Where this gateway runs, for services that prefer their own zone; None, and its node's label tells."""
    node: str | None
    """The node that it runs on; None, and without a zone every zone is as near."""
    limits: Limits
    requests: RequestLimits
    drain_grace_s: float
    """After SIGTERM: still accepting, since not every client has heard yet that we are leaving."""
    drain_timeout_s: float
    access_log_share: float
    log_level: str
    picker: PickerSettings | None = None
    """The endpoint picker; None: it is not served."""
    tracing: TracingSettings | None = None
    """None: no spans are made."""
    peer_port: int = 0
    peers: tuple[tuple[str, int], ...] = ()
    """Other gateway processes, beside those that the cluster tells of."""
    peer_secret: Path | None = None
    """What messages between gateways are signed with; None: the cluster's keyring has it."""
    processes: int = 1
    address: str | None = None
    """Where other gateways reach this one, so that it does not take itself for another."""
    inherited: Inherited | None = None
    queue: QueueBounds = field(default_factory=QueueBounds)
    streams: StreamLimits = field(default_factory=StreamLimits)
    bytes_per_second: float | None = None
    """Of this process, for bodies and answers together, shared by weight; None: as fast as it goes."""


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """The settings in `arguments` (the process's own when None); exits with a usage message on an unknown flag.

    Raises:
        SettingsError: a value is out of its range.
    """
    flags = _parser().parse_args(arguments)
    for name in _POSITIVE:
        if getattr(flags, name) <= 0:
            raise SettingsError(f"--{name.replace('_', '-')} is {getattr(flags, name)}; it must be greater than 0.")
    for name in _NOT_NEGATIVE:
        if getattr(flags, name) < 0:
            raise SettingsError(f"--{name.replace('_', '-')} is {getattr(flags, name)}; it must be 0 or more.")
    for name in _MEBIBYTES:
        if 0.0 < (mebibytes := getattr(flags, name)) < 1 / MIB:
            raise SettingsError(f"--{name.replace('_', '-')} is {mebibytes:g}; that is less than one byte.")
    if flags.max_buffered_mib < flags.max_body_mib:
        raise SettingsError(
            f"--max-buffered-mib is {flags.max_buffered_mib:g}, less than --max-body-mib, {flags.max_body_mib:g}: the"
            " largest body would never be taken."
        )
    for name in ("port", "admin_port", "peer_port", "picker_port"):
        if not 0 <= getattr(flags, name) <= 65535:
            raise SettingsError(f"--{name.replace('_', '-')} is {getattr(flags, name)}; ports go from 0 to 65535.")
    if flags.port == flags.admin_port != 0:
        raise SettingsError(f"--port and --admin-port are both {flags.port}; the admin server needs its own.")
    if not 0.0 <= flags.access_log <= 1.0:
        raise SettingsError(f"--access-log is {flags.access_log}; it is the share of requests to log, from 0 to 1.")
    if (flags.picker_certificate is None) != (flags.picker_key is None):
        raise SettingsError("--picker-certificate and --picker-key come together.")
    if not 0.0 <= flags.trace_share <= 1.0:
        raise SettingsError(f"--trace-share is {flags.trace_share}; it is the share of requests to trace, from 0 to 1.")
    if flags.otlp_endpoint is not None and not flags.otlp_endpoint.startswith(("http://", "https://")):
        raise SettingsError(
            f"--otlp-endpoint is {flags.otlp_endpoint}; it is a base URL, such as http://collector.monitoring:4318."
        )
    if flags.peer and flags.peer_secret is None and flags.static is not None:
        raise SettingsError("--peer needs --peer-secret where --static is given: there is no keyring to take one from.")
    if flags.peer_secret is not None and not flags.peer_secret.is_file():
        raise SettingsError(f"--peer-secret {flags.peer_secret}: there is no such file.")
    if flags.bytes_per_second and flags.bytes_per_second < LEAST_BYTES_PER_S * flags.processes:
        raise SettingsError(
            f"--bytes-per-second is {flags.bytes_per_second}; it is 0, which limits nothing, or at least"
            f" {LEAST_BYTES_PER_S:,} for each of --processes ({flags.processes})."
        )
    if flags.static is not None and not flags.static.is_file():
        raise SettingsError(f"--static {flags.static}: there is no such file.")
    return _settings(flags)


def _settings(flags: argparse.Namespace) -> Settings:
    return Settings(
        host=flags.host,
        port=flags.port,
        admin_port=flags.admin_port,
        static=flags.static,
        kubeconfig=flags.kubeconfig,
        system_namespace=flags.system_namespace,
        zone=flags.zone or None,
        node=flags.node or None,
        limits=Limits(
            body_bytes=int(flags.max_body_mib * MIB),
            buffered_bytes=int(flags.max_buffered_mib * MIB),
            connections=flags.max_connections,
            head_timeout_s=flags.header_timeout,
            idle_timeout_s=flags.idle_timeout,
        ),
        requests=RequestLimits(flags.max_in_flight, flags.deadline, flags.endpoint_wait, flags.cold_wait),
        drain_grace_s=flags.drain_grace,
        drain_timeout_s=flags.drain_timeout,
        access_log_share=flags.access_log,
        log_level=flags.log_level,
        picker=_picker(flags),
        tracing=TracingSettings(flags.otlp_endpoint, flags.trace_share) if flags.otlp_endpoint else None,
        peer_port=flags.peer_port,
        peers=tuple(_peer(text) for text in flags.peer),
        peer_secret=flags.peer_secret,
        processes=flags.processes,
        address=flags.address,
        inherited=_inherited(flags.inherited) if flags.inherited else None,
        queue=QueueBounds(flags.queue_requests, int(flags.queue_mib * MIB), flags.queue_wait),
        streams=StreamLimits(journal_bytes=int(flags.journal_mib * MIB)),
        bytes_per_second=flags.bytes_per_second / flags.processes if flags.bytes_per_second else None,
    )


def _picker(flags: argparse.Namespace) -> PickerSettings | None:
    if not flags.picker_port:
        return None
    files = flags.picker_certificate, flags.picker_key
    return PickerSettings(flags.picker_port, None if files == (None, None) else files)


def _inherited(text: str) -> Inherited:
    told = json.loads(text)
    siblings = tuple((host, port) for host, port in told["siblings"])
    return Inherited(told["http"], told["admin"], told["peer"], siblings)


def _peer(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise SettingsError(f"--peer {text}: it must be an IP address and a port, such as 10.0.0.7:8082.") from None
    if not colon or not port.isdigit() or not 0 < int(port) <= 65535:
        raise SettingsError(f"--peer {text}: it must end with a port from 1 to 65535.")
    return str(address), int(port)


_POSITIVE = (
    "max_body_mib",
    "max_buffered_mib",
    "max_connections",
    "max_in_flight",
    "header_timeout",
    "idle_timeout",
    "deadline",
    "processes",
    "queue_requests",
    "queue_mib",
    "queue_wait",
)

_MEBIBYTES = ("max_body_mib", "max_buffered_mib", "queue_mib", "journal_mib")

_NOT_NEGATIVE = ("endpoint_wait", "cold_wait", "drain_grace", "drain_timeout", "journal_mib")


def _finite(text: str) -> float:
    """`nan` compares with nothing, and no timer takes `inf`."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"'{text}' is no finite number, such as 30 or 2.5")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m gateway", description="The data plane of Foretide.")
    add = parser.add_argument
    limits, requests = Limits(), RequestLimits()
    add("--host", default="0.0.0.0", help="address to listen on, for clients and for the admin server")
    add("--port", type=int, default=GATEWAY_HTTP_PORT)
    add("--admin-port", type=int, default=GATEWAY_ADMIN_PORT)
    add("--static", type=Path, metavar="FILE", help="tenants, services and endpoints in YAML or JSON; no Kubernetes")
    add("--kubeconfig", type=Path, help="default: KUBECONFIG, then the pod's service account")
    add("--system-namespace", default="foretide-system", help="where the keyring Secret is")
    add("--zone", help="where this gateway runs (topology.kubernetes.io/zone), for services that prefer their own")
    add("--node", help="the node that this gateway runs on, whose label tells the zone where --zone does not")
    add("--max-body-mib", type=_finite, default=limits.body_bytes / MIB, help="of one request")
    add("--max-buffered-mib", type=_finite, default=limits.buffered_bytes / MIB, help="of all request bodies together")
    add("--max-connections", type=int, default=limits.connections)
    add("--max-in-flight", type=int, default=requests.in_flight, help="requests at the same time")
    add("--header-timeout", type=_finite, default=limits.head_timeout_s, metavar="SECONDS")
    add("--idle-timeout", type=_finite, default=limits.idle_timeout_s, metavar="SECONDS", help="of a client connection")
    add(
        "--deadline",
        type=_finite,
        default=requests.deadline_s,
        metavar="SECONDS",
        help="of a request, retries included",
    )
    add(
        "--endpoint-wait", type=_finite, default=requests.wait_s, metavar="SECONDS", help="for a worker to become ready"
    )
    add(
        "--cold-wait",
        type=_finite,
        default=requests.cold_wait_s,
        metavar="SECONDS",
        help="the same, where scaled to zero",
    )
    add("--drain-grace", type=_finite, default=3.0, metavar="SECONDS", help="after SIGTERM, still accepting")
    add("--drain-timeout", type=_finite, default=120.0, metavar="SECONDS", help="after the grace, for open responses")
    add("--picker-port", type=int, default=0, help="endpoint picker for Envoy (ext_proc, gRPC); 0: not served")
    add("--picker-certificate", type=Path, metavar="FILE", help="PEM; without it the picker speaks plain text")
    add("--picker-key", type=Path, metavar="FILE")
    add("--otlp-endpoint", metavar="URL", help="collector for traces, OTLP over HTTP, such as http://collector:4318")
    add("--trace-share", type=_finite, default=0.01, help="of requests without a traceparent that are traced")
    bounds = QueueBounds()
    add("--processes", type=int, default=1, help="that share the port, one a core; their limits are one")
    add("--inherited", help=argparse.SUPPRESS)
    add("--address", help="of this gateway, by which the others know it; default: it is not among those it is told of")
    add("--peer-port", type=int, default=GATEWAY_PEER_PORT, help="UDP, where gateways agree on limits; 0 chooses one")
    add("--peer", action="append", default=[], metavar="ADDRESS:PORT", help="another gateway process; may be repeated")
    add("--peer-secret", type=Path, metavar="FILE", help="signs what gateways tell each other; default: the keyring's")
    add("--queue-requests", type=int, default=bounds.requests, help="of one service that wait for a worker's slot")
    add("--queue-mib", type=_finite, default=bounds.bytes / MIB, help="of their bodies")
    add("--queue-wait", type=_finite, default=bounds.wait_s, metavar="SECONDS", help="where no SLA says")
    add(
        "--journal-mib",
        type=_finite,
        default=StreamLimits().journal_bytes / MIB,
        help="for the journals of all open streams, by which they outlive their workers; 0: none does",
    )
    add(
        "--bytes-per-second",
        type=int,
        default=0,
        help="of request bodies and answers together, shared by the Tenants' weights where it is scarce; 0: no limit",
    )
    add("--access-log", type=_finite, default=1.0, metavar="SHARE", help="of requests that are logged; 0 is off")
    add("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser
