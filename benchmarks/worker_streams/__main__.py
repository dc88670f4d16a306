"""`python -m benchmarks.worker_streams`: measure, write the results, say what was missed."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.report import RESULTS, Report, Row, Words, publish
from benchmarks.worker_streams.clients import connect, drain
from e2e.ports import free_port

GOAL_US: Final = 40.0
GOAL_HELD_UP_MS: Final = 1.0


@dataclass(frozen=True)
class Workload:
    name: str
    n_streams: int
    step_ms: float
    n_steps: int

    @property
    def n_tokens(self) -> int:
        return self.n_streams * self.n_steps


@dataclass(frozen=True)
class Measured:
    cpu_us_per_token: float
    wall_s: float
    held_up_ms: list[float]
    """Of each step: how long the engine waited for its message to be taken."""


WORKLOADS: Final = (
    Workload("2,000 streams, a step every 150 ms", 2000, 150.0, 60),
    Workload("2,000 streams, a step every 10 ms: more than one core can write", 2000, 10.0, 200),
    Workload("200 streams, a step every 20 ms", 200, 20.0, 400),
)


def measure(workload: Workload) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        report, port = Path(folder) / "engine.json", free_port()
        engine = [str(value) for value in (workload.step_ms, workload.n_steps, workload.n_streams, report)]
        server = subprocess.Popen([sys.executable, "-m", "benchmarks.worker_streams.server", str(port), *engine])
        try:
            _wait_listening(port, server)
            sockets = connect(port, workload.n_streams)
            before: list[float] = []
            began_at: list[float] = []

            def begin() -> None:
                before.append(_cpu_s(server.pid))
                began_at.append(time.monotonic())

            drain(sockets, begin)
            used_s, wall_s = _cpu_s(server.pid) - before[0], time.monotonic() - began_at[0]
        finally:
            server.terminate()
            server.wait()
        held_up_ms = [1e3 * seconds for seconds in json.loads(report.read_text())]
    return Measured(used_s / workload.n_tokens * 1e6, wall_s, held_up_ms)


def rows(workload: Workload, measured: Measured) -> list[Row]:
    name, held = workload.name, sorted(measured.held_up_ms)
    return [
        Row(name, "server CPU per streamed token", "µs", round(measured.cpu_us_per_token, 2), goal=GOAL_US),
        Row(name, "tokens written", "1/s", round(workload.n_tokens / measured.wall_s)),
        Row(name, "engine held up per step, median", "ms", round(median(held), 3), goal=GOAL_HELD_UP_MS),
        Row(name, "engine held up per step, p99", "ms", round(held[int(len(held) * 0.99)], 3)),
    ]


def words(load: float) -> Words:
    return Words(
        title="The worker's server: streams",
        command="python -m benchmarks.worker_streams",
        about=[
            "The worker's API process alone: an engine that computes nothing gives every open chat stream a token per "
            "step over the real socket, and clients read all of it. CPU is user and system time of the server "
            "process, from the first token to the last; time that the engine spends in sending a step's message is "
            "time a real one would lose.",
        ],
        notes=[
            "Where steps come faster than one core can write, a stream gets several tokens in one write: they come "
            "in larger pieces, and the engine goes on.",
            f"The load average at the end was {load:.1f}; CPU time per token grows with it (caches are shared).",
        ],
    )


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_listening(port: int, server: subprocess.Popen[bytes], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the server does not listen within {limit_s:g} s (exit code {server.poll()})")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.worker_streams", description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: docs/benchmarks)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps, nothing written")
    arguments = parser.parse_args()
    found: list[Row] = []
    for workload in WORKLOADS:
        steps = max(workload.n_steps // 10, 5) if arguments.quick else workload.n_steps
        workload = Workload(workload.name, workload.n_streams, workload.step_ms, steps)
        own = rows(workload, measure(workload))
        print(f"{workload.name}: " + ", ".join(f"{row.metric} {row.ours} {row.unit}" for row in own))
        found += own
    if not arguments.quick:
        publish(Report.of_now(found), words(os.getloadavg()[0]), "worker_streams", arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
