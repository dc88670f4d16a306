"""What is asked of every proxy, and what one round of it measures."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway.subject import Subject


class WrongAnswers(Exception):
    """The proxy lost, changed or refused answers: its numbers would compare nothing."""


@dataclass(frozen=True)
class Client:
    """The load generator against one proxy."""

    program: Path
    port: int
    cores: set[int]

    def run(self, command: str, *flags: object) -> dict[str, Any]:
        argv = ["taskset", "-c", ",".join(map(str, sorted(self.cores))), str(self.program), command]
        argv += ["-target", f"127.0.0.1:{self.port}", *map(str, flags)]
        found = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
        if found["errors"]:
            raise WrongAnswers(f"{found['errors']} of {found['done'] + found['errors']}: {found['error']}")
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Measured:
    """One number of one round."""

    metric: str
    unit: str
    value: float


Workload = Callable[[Subject, Client, float], Sequence[Measured]]
"""`seconds` says how long each of its loads takes."""


def requests(body_bytes: int, name: str) -> Workload:
    """CPU per request at a fixed 32 connections, and how many a core carries."""

    def measure(subject: Subject, client: Client, seconds: float) -> Sequence[Measured]:
        client.run("closed", "-body", body_bytes, "-connections", 32, "-seconds", min(seconds, 2.0))
        before_s = subject.cpu_s()
        found = client.run("closed", "-body", body_bytes, "-connections", 32, "-seconds", seconds)
        used_s = subject.cpu_s() - before_s
        each = Measured(f"CPU per request, {name}", "µs", used_s / found["done"] * 1e6)
        # What it could do if the core were all its own: the generator shares the machine with others.
        rate = Measured(f"requests a second of one core's CPU time, {name}", "1/s", found["done"] / used_s)
        return [each, rate]

    return measure


def streams(count: int, chunks: int = 250) -> Workload:
    """CPU per chunk, with so many streams open, a chunk each 20 ms."""

    def measure(subject: Subject, client: Client, seconds: float) -> Sequence[Measured]:
        rounds = max(1, round(seconds / (chunks * 0.02)))
        client.run("streams", "-streams", count, "-chunks", 25, "-rounds", 1)
        before_s = subject.cpu_s()
        found = client.run("streams", "-streams", count, "-chunks", chunks, "-rounds", rounds)
        used_s = subject.cpu_s() - before_s
        return [Measured(f"CPU per chunk, {count} streams", "µs", used_s / (found["done"] * chunks) * 1e6)]

    return measure


def latency(rate: float) -> Workload:
    """Time to the first byte at a fixed rate; what the backend alone takes is taken off by the caller."""

    def measure(subject: Subject, client: Client, seconds: float) -> Sequence[Measured]:
        client.run("open", "-rate", rate, "-seconds", 1)
        found = client.run("open", "-rate", rate, "-seconds", seconds)
        return [
            Measured(f"time to first byte p50, {rate:g} requests/s", "ms", found["p50_ms"]),
            Measured(f"time to first byte p99, {rate:g} requests/s", "ms", found["p99_ms"]),
        ]

    return measure


def memory(count: int) -> Workload:
    """Resident memory at rest, and with so many open streams."""

    def measure(subject: Subject, client: Client, seconds: float) -> Sequence[Measured]:
        idle_mb = subject.rss_mb()
        argv = [str(client.program), "streams", "-target", f"127.0.0.1:{client.port}", "-interval", "3s"]
        argv += ["-streams", str(count), "-chunks", "8", "-rounds", "1"]
        holding = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        most_mb = idle_mb
        while holding.poll() is None:
            most_mb = max(most_mb, subject.rss_mb())
            time.sleep(0.1)
        found = json.loads(holding.communicate()[0])
        if found["errors"]:
            raise WrongAnswers(f"{found['errors']} of {count} streams: {found['error']}")
        return [
            Measured("resident memory at rest", "MB", idle_mb),
            Measured(f"resident memory with {count:,} open streams", "MB", most_mb),
        ]

    return measure
