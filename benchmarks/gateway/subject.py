"""A proxy as a process on a core of its own, with its CPU time and memory read from /proc."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.gateway.peers import Started

START_LIMIT_S = 60.0


class NotStarted(Exception):
    """The proxy did not listen in time; the message has the end of what it printed."""


@dataclass
class Subject:
    """Runs inside the block, pinned to `cores`; all its processes are counted together."""

    started: Started
    port: int
    cores: set[int]
    log: Path

    def __enter__(self) -> Self:
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, sorted(self.cores))), *self.started.argv],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.started.environment},
                start_new_session=True,
                preexec_fn=_many_files,
            )
        began_s = time.monotonic()
        while not (listens(self.port) and _is_ready(self.started.ready)):
            if self._process.poll() is not None or time.monotonic() - began_s > START_LIMIT_S:
                self.stop()
                said = self.log.read_text(errors="replace")[-2000:]
                raise NotStarted(f"`{' '.join(self.started.argv[:3])} …` does not listen on {self.port}: {said}")
            time.sleep(0.05)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        for wanted in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                os.killpg(self._process.pid, wanted)
                try:
                    self._process.wait(10.0)
                except subprocess.TimeoutExpired:
                    continue

    def cpu_s(self) -> float:
        """User and system time of all its processes so far."""
        return sum(_cpu_s(pid) for pid in self._pids())

    def rss_mb(self) -> float:
        return sum(_rss_bytes(pid) for pid in self._pids()) / 1e6

    def _pids(self) -> list[int]:
        """The processes of its session."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                fields = _stat(int(entry.name))
                if fields and int(fields[3]) == self._process.pid:
                    found.append(int(entry.name))
        return found


def _many_files() -> None:
    """As many open files as it may have: a stream takes two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_ready(url: str | None) -> bool:
    if url is None:
        return True
    try:
        with urllib.request.urlopen(url, timeout=1.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name; none where the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _rss_bytes(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0
