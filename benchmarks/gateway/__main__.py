"""`python -m benchmarks.gateway`: every proxy on a core of its own, generator and backend on another; rounds, medians.

A round takes the proxies one after the other, so that what the machine does beside us meets all of them. Finished
rounds are kept: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gateway.page import OURS, rows, words
from benchmarks.gateway.peers import PEERS, Peer, Place, foretide
from benchmarks.gateway.subject import NotStarted, Subject, listens
from benchmarks.gateway.tools import load_generator
from benchmarks.gateway.workloads import Client, Workload, WrongAnswers, latency, memory, requests, streams
from benchmarks.report import RESULTS, Report, Row, commit, number, publish
from e2e.cluster.progress import Progress
from e2e.ports import free_port, free_ports

SUBJECTS: Mapping[str, Peer] = {OURS: foretide, **PEERS}
WORKLOADS: Mapping[str, Workload] = {
    "1 kB": requests(1_000, "1 kB"),
    "16 kB": requests(16_000, "16 kB"),
    "64 streams": streams(64),
    "256 streams": streams(256),
    "100 requests/s": latency(100.0),
    "300 requests/s": latency(300.0),
    "memory": memory(9_500),
}
Rounds = list[dict[str, dict[str, Any]]]
"""Of each round: subject → metric → {unit, value}."""


@contextmanager
def backend(program: Path, cores: set[int]) -> Iterator[int]:
    port = free_port()
    argv = ["taskset", "-c", ",".join(map(str, sorted(cores))), str(program), "backend", "-listen", f"127.0.0.1:{port}"]
    running = subprocess.Popen(argv)
    try:
        while not listens(port):
            assert running.poll() is None, "the backend has ended"
        yield port
    finally:
        running.terminate()
        running.wait()


def one(
    name: str, program: Path, backend_port: int, cores: set[int], seconds: float, progress: Progress
) -> dict[str, Any]:
    """Everything measured of one proxy in one round; empty where it cannot be had."""
    proxy, client_cores = {min(cores)}, cores - {min(cores)} or cores
    with tempfile.TemporaryDirectory(prefix="foretide-bench-") as folder:
        port, admin_port = free_ports(2)
        place = Place(port, admin_port, backend_port, Path(folder))
        started = SUBJECTS[name](place, progress)
        if started is None:
            return {}
        client = Client(program, place.port, client_cores)
        found: dict[str, Any] = {}
        for workload in WORKLOADS.values():
            with Subject(started, place.port, proxy, Path(folder) / "log") as subject:
                for each in workload(subject, client, seconds):
                    found[each.metric] = {"unit": each.unit, "value": each.value}
    return found


def bare(program: Path, backend_port: int, cores: set[int], seconds: float) -> dict[str, Any]:
    """The backend without a proxy: what is taken off the latencies."""
    client = Client(program, backend_port, cores - {min(cores)} or cores)
    found = {}
    for rate in (100.0, 300.0):
        for each in latency(rate)(None, client, seconds):  # type: ignore[arg-type]
            found[each.metric] = {"unit": each.unit, "value": each.value}
    return found


def measure(kept: Path, wanted: int, seconds: float, progress: Progress) -> Rounds:
    program, cores = load_generator(progress), os.sched_getaffinity(0)
    rounds: Rounds = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    while len(rounds) < wanted:
        found: dict[str, dict[str, Any]] = {}
        with backend(program, cores - {min(cores)} or cores) as port:
            found[""] = bare(program, port, cores, seconds)
            for name in SUBJECTS:
                with progress.step(f"Round {len(rounds) + 1} of {wanted}: {name}"):
                    try:
                        found[name] = one(name, program, port, cores, seconds, progress)
                    except (NotStarted, WrongAnswers) as error:
                        progress.say(f"{name} is left out: {error}")
                        if name == OURS:
                            raise
        rounds.append(found)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.open("a") as out:
            out.write(json.dumps(found) + "\n")
    return rounds


def medians(rounds: Rounds) -> dict[str, dict[str, tuple[str, float]]]:
    """Subject → metric → (unit, median over the rounds)."""
    found: dict[str, dict[str, list[Any]]] = {}
    for each in rounds:
        for name, metrics in each.items():
            for metric, one_value in metrics.items():
                found.setdefault(name, {}).setdefault(metric, []).append(one_value)
    return {
        name: {
            metric: (values[0]["unit"], median(one["value"] for one in values)) for metric, values in metrics.items()
        }
        for name, metrics in found.items()
    }


def line(row: Row) -> str:
    beside = "" if row.peer is None else f", {row.peer_name} {number(row.peer)}"
    goal = "" if row.goal is None else f" (goal {number(row.goal)}: {'met' if row.met else 'missed'})"
    return f"{row.workload}: {row.metric}: {number(row.ours)} {row.unit}{beside}{goal}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gateway", description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (default: docs/benchmarks)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--quick", action="store_true", help="one short round, nothing written")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 1.0
    kept = Path("build") / "bench-gateway" / f"{commit()}{'-quick' if arguments.quick else ''}.jsonl"
    found = medians(measure(kept, arguments.rounds, arguments.seconds, Progress()))
    made = rows(found)
    for row in made:
        print(line(row))
    if not arguments.quick:
        publish(Report.of_now(made), words(found, os.getloadavg()[0]), "gateway", arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
