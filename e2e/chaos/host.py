"""The cluster's machine from outside: a container's processes, its cgroups, its network. Blocking; call it in a thread.

Everything done to a network or a cgroup goes with the pod or the container that it is of, and each act has its undoing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.chaos.signs import PodLook
from e2e.cluster.cgroups import ROOT
from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import ClusterError
from e2e.cluster.process import start_time
from e2e.cluster.shell import program, run

CLASSES: Final = ("burstable", "besteffort", "")
"""Of quality of service, as the kubelet names their cgroups."""
PERIOD_US: Final = 100_000
_ENGINE: Final = "worker_image.engine.process"


@dataclass(frozen=True)
class Container:
    """A worker's container that runs now. Its first process only hands signals on."""

    first: int
    server: int
    engine: int | None
    """None while it is not started yet."""
    cgroup: str
    """Below every controller's root."""

    @property
    def pids(self) -> list[int]:
        return [pid for pid in (self.first, self.server, self.engine) if pid is not None]

    def alive(self) -> bool:
        return all(start_time(pid) is not None for pid in self.pids)

    def file(self, controller: str, name: str) -> Path:
        return ROOT / controller / self.cgroup / name


class NotThere(ClusterError):
    """The container is not running, so there is nothing to break."""


class Host:
    """Acts on pods of the cluster's nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def container(self, pod: PodLook) -> Container:
        """Raises NotThere."""
        return _container(self._cgroup(pod.node, pod.uid, pod.container))

    def main_pids(self, node: str, uid: str, container: str) -> list[int]:
        """All processes of any container."""
        return _pids(self._cgroup(node, uid, container))

    def scratch(self, pod: PodLook) -> Path:
        """The pod's volume `tmp` on this machine's disk."""
        volumes = self._cluster.node(pod.node).layout.var_lib / "kubelet/pods" / pod.uid / "volumes"
        return volumes / "kubernetes.io~empty-dir" / "tmp"

    def _cgroup(self, node: str, uid: str, container: str) -> str:
        own = self._cluster.node(node).layout.cgroup
        for quality in CLASSES:
            group = "/".join(part for part in (own, "kubepods", quality, f"pod{uid}", container) if part)
            if container and (ROOT / "memory" / group / "cgroup.procs").exists():
                return group
        raise NotThere(f"No container {container or '(none)'} of pod {uid} runs on {node}.")


def _container(cgroup: str) -> Container:
    pids = _pids(cgroup)
    parents = {pid: _parent(pid) for pid in pids}
    first = next((pid for pid, parent in parents.items() if parent not in pids), None)
    server = next((pid for pid, parent in parents.items() if parent == first), None)
    if first is None or server is None:
        raise NotThere(f"The container of {cgroup} is starting or ending.")
    engine = next((pid for pid in pids if _ENGINE in _command(pid)), None)
    return Container(first, server, engine, cgroup)


def _pids(cgroup: str) -> list[int]:
    return [int(word) for word in (ROOT / "memory" / cgroup / "cgroup.procs").read_text().split()]


def _parent(pid: int) -> int | None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def _command(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """To each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def throttle(container: Container, share: float | None) -> None:
    """Gives the container that share of one core; None: as much as it gets. One that is gone needs no undoing."""
    quota = -1 if share is None else int(share * PERIOD_US)
    with contextlib.suppress(FileNotFoundError, OSError):
        container.file("cpu", "cpu.cfs_quota_us").write_text(str(quota))


_HOG: Final = """
import os, pathlib, sys
procs, engine, limit = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
procs.write_text(str(os.getpid()))
held = []
while len(held) < limit >> 20 and engine.exists() and engine.read_text().rpartition(')')[2].split()[0] not in 'ZX':
    held.append(bytearray(b'x' * (1 << 20)))
"""
"""Fills the cgroup with pages that cannot be given back, until the engine is at its end."""


def fill_memory(container: Container) -> None:
    """Fills the container's memory until the kernel ends a process of it; it is told to end the engine first.

    Raises NotThere without an engine.
    """
    if container.engine is None:
        raise NotThere(f"The engine of {container.cgroup} is not running.")
    Path(f"/proc/{container.engine}/oom_score_adj").write_text("1000")
    limit = container.file("memory", "memory.limit_in_bytes").read_text().strip()
    procs = str(container.file("memory", "cgroup.procs"))
    hog = [sys.executable, "-c", _HOG, procs, f"/proc/{container.engine}/stat", limit]
    # The kernel may end it, too.
    subprocess.run(hog, check=False, capture_output=True, timeout=60)


@contextmanager
def deaf(container: Container, addresses: Sequence[str]) -> Iterator[None]:
    """No packet between the pod and these addresses inside the block, in either direction."""
    listed = ", ".join(addresses)
    rules = (
        "table ip chaos {\n"
        f" chain in {{ type filter hook input priority 0; ip saddr {{ {listed} }} drop; }}\n"
        f" chain out {{ type filter hook output priority 0; ip daddr {{ {listed} }} drop; }}\n"
        "}\n"
    )
    with _network(container) as holder:
        run([*_inside(holder), program("nft"), "--file", "-"], stdin=rules)
        try:
            yield
        finally:
            run([*_inside(holder), program("nft"), "delete", "table", "ip", "chaos"])


@contextmanager
def narrow(container: Container, rate: str) -> Iterator[None]:
    """What the pod sends goes through a link of that rate inside the block, and waits up to three seconds for it."""
    shape = ["root", "tbf", "rate", rate, "burst", "2kb", "latency", "3s"]
    with _network(container) as holder:
        run([*_inside(holder), program("tc"), "qdisc", "replace", "dev", "eth0", *shape])
        try:
            yield
        finally:
            run([*_inside(holder), program("tc"), "qdisc", "delete", "dev", "eth0", "root"])


@contextmanager
def _network(container: Container) -> Iterator[Path]:
    """A handle on the pod's network that outlives the container, which may be restarted meanwhile."""
    handle = os.open(f"/proc/{container.first}/ns/net", os.O_RDONLY)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{handle}")
    finally:
        os.close(handle)


def _inside(holder: Path) -> list[str]:
    return ["nsenter", f"--net={holder}"]


@contextmanager
def filled(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Takes that much of the disk for a file in the folder. The file goes with the block at the latest."""
    file = folder / "filled-by-chaos"
    with file.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, size_bytes)
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
