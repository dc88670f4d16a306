"""The process that is measured: ours or the peer's. Started, asked for its counters, weighed, and stopped in order."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.control_plane.api import samples_of
from benchmarks.control_plane.exposition import Samples, total
from benchmarks.report import REPOSITORY
from e2e.cluster.process import Process
from e2e.ports import free_port

POLL_S: Final = 0.2
"""Rendering its metrics costs a subject some milliseconds, which must not become what is measured."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to start a subject, and how many objects it has handled by its own count."""

    name: str
    command: Callable[[Path, int], Sequence[str]]
    """From kubeconfig and metrics port."""
    handled: Callable[[Samples, str], float]
    """Objects of a kind that were handled so far."""
    kinds: tuple[str, ...]
    """What it handles."""
    of_peer: bool
    environment: Mapping[str, str]
    settles_s: float
    """No write for so long after a start means that it has done all it wants, by the slowest of its timers."""


def ours(profile: Path | None = None) -> Recipe:
    """The operator. With `profile` it writes a cProfile of its main thread there when it ends."""
    operator = str(REPOSITORY / "operator" / "main.py")
    start = [operator] if profile is None else ["-m", "benchmarks.control_plane.profiled", str(profile)]

    def command(kubeconfig: Path, port: int) -> Sequence[str]:
        flags = ["--kubeconfig", str(kubeconfig), "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
        return [sys.executable, *start, *flags]

    def handled(samples: Samples, kind: str) -> float:
        return total(samples, "foretide_reconciles_total", kind=kind)

    return Recipe(
        "Foretide",
        command,
        handled,
        ("InferenceService", "Model", "SLA", "Tenant"),
        of_peer=False,
        environment={},
        settles_s=0.0,
    )


def peer(status_every_s: float) -> Recipe:
    """The same work in plain Kopf handlers; it knows InferenceServices only."""
    handlers = str(Path(__file__).with_name("peer.py"))

    def command(kubeconfig: Path, port: int) -> Sequence[str]:
        return [sys.executable, "-m", "kopf", "run", "--standalone", "--all-namespaces", "--quiet", handlers]

    def handled(samples: Samples, kind: str) -> float:
        return total(samples, "peer_handled_total")

    return Recipe(
        "plain Kopf",
        command,
        handled,
        ("InferenceService",),
        of_peer=True,
        environment={"PEER_STATUS_EVERY_S": str(status_every_s)},
        settles_s=status_every_s + 2.0,
    )


class Subject:
    """One life after the other of one recipe. Each life gets a fresh port."""

    def __init__(self, recipe: Recipe, kubeconfig: Path, folder: Path) -> None:
        self.recipe = recipe
        self._kubeconfig = kubeconfig
        self._process = Process(recipe.name.replace(" ", "-").lower(), folder, leash=True)
        self._port = 0

    def start(self) -> float:
        """Begin a life; returns when it began, monotonic."""
        self._port = free_port()
        environment = {
            "PYTHONPATH": str(REPOSITORY),
            "KUBECONFIG": str(self._kubeconfig),
            "PEER_METRICS_PORT": str(self._port),
            **self.recipe.environment,
        }
        started_s = time.monotonic()
        self._process.start(self.recipe.command(self._kubeconfig, self._port), environment)
        return started_s

    def stop(self) -> None:
        self._process.stop()

    def check(self) -> None:
        """Raises StartFailed with the end of its log when it no longer runs."""
        self._process.check()

    async def samples(self) -> Samples:
        """Its counters now; empty while it does not answer."""
        self.check()
        try:
            return await asyncio.to_thread(samples_of, f"http://127.0.0.1:{self._port}/metrics")
        except OSError:
            return {}

    async def until(self, reached: Callable[[Samples], bool], within_s: float) -> float:
        """When `reached` first held, monotonic, within a poll of 0.2 s. Raises TimeoutError with its log."""
        deadline_s = time.monotonic() + within_s
        while True:
            samples = await self.samples()
            now_s = time.monotonic()
            if samples and reached(samples):
                return now_s
            if now_s > deadline_s:
                raise TimeoutError(f"{self.recipe.name}: not within {within_s:.0f} s. Its log:\n{self._process.tail()}")
            await asyncio.sleep(POLL_S)

    # --- weighing --------------------------------------------------------------------------------------------
    def cpu_s(self) -> float:
        """User and system time of all threads so far."""
        fields = Path(f"/proc/{self._pid()}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def rss_mb(self) -> float:
        return self._status_mb("VmRSS")

    def peak_rss_mb(self) -> float:
        return self._status_mb("VmHWM")

    def _status_mb(self, field: str) -> float:
        for line in Path(f"/proc/{self._pid()}/status").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key == field:
                return int(value.split()[0]) * 1024 / 1e6
        raise LookupError(f"/proc/{self._pid()}/status has no {field}.")

    def _pid(self) -> int:
        self.check()
        pid = self._process.pid()
        assert pid is not None, "check() has just seen it run"
        return pid
