"""One run: the stages that have no result yet, each in the process or on the engine it needs; results are files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.engine import cold_start
from benchmarks.engine.driver import Engine
from benchmarks.engine.results import Results
from benchmarks.engine.settings import engine_settings, write
from benchmarks.engine.stages import Kind, Result, Stage, stages, warm_up
from benchmarks.engine.workloads import Rules
from benchmarks.report import REPOSITORY, commit, machine

PEER_BATCHES = ("1", "8")
MODULE_LIMIT_S = 240.0
IDLE_S = 5.0
"""Graphs of all sizes are made in less."""


@dataclass(frozen=True, slots=True)
class Options:
    """`commit`: of the code, where the tree at hand has no repository."""

    quick: bool
    only: frozenset[str] | None
    repeats: int
    limit_s: float
    commit: str | None


class Run:
    """What is left to do, and the engine that is running. `with` ends that engine."""

    def __init__(self, rules: Rules, results: Results, options: Options) -> None:
        self._rules, self._results, self._options = rules, results, options
        self._ends_at = time.monotonic() + options.limit_s
        self._engine: tuple[Kind, Engine] | None = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def wanted(self, name: str) -> bool:
        """False for what is measured, not asked for, or would begin too late."""
        asked = self._options.only is None or name in self._options.only
        return asked and not self._results.has(name) and time.monotonic() < self._ends_at

    def alone(self, name: str, measure: Callable[[], Result]) -> None:
        """A stage that wants the card for itself."""
        if self.wanted(name):
            self._close()
            with _announced(name):
                self._results.save(name, measure())

    def driven(self, stage: Stage) -> None:
        if self.wanted(stage.name):
            engine = self._engine_of(stage.kind)
            with _announced(stage.name):
                self._results.save(stage.name, stage.run(engine))

    def _engine_of(self, kind: Kind) -> Engine:
        if self._engine is not None and self._engine[0] is kind:
            return self._engine[1]
        self._close()
        with _announced(f"engine: {kind}, and its warm-up"):
            engine = Engine(engine_settings(self._rules, kind, quick=self._options.quick))
            self._engine = (kind, engine)
            warm_up(engine, self._rules, kind, 0.0 if self._options.quick else IDLE_S)
        return engine

    def _close(self) -> None:
        if self._engine is not None:
            self._engine[1].close()
            self._engine = None


def run(rules: Rules, results: Results, options: Options) -> None:
    """Raises what a stage raises; the stages before it have their files."""
    with Run(rules, results, options) as running:
        running.alone("machine", lambda: _machine(options.commit or commit()))
        running.alone("ceilings", lambda: _module("ceilings", [])[-1])
        for stage in stages(rules, options.repeats):
            running.driven(stage)
        running.alone("cold_start", lambda: _cold_start(rules, options, warm=True))
        running.alone("agreement", lambda: _agreement(rules, results))
        running.alone("kernels", lambda: _module("kernels", [])[-1])
        running.alone("transformers", lambda: _peer(rules, options))
        running.alone("cold_start_empty", lambda: _cold_start(rules, options, warm=False))


def _machine(at: str) -> Result:
    return {"machine": machine(), "commit": at, "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}


def _model(rules: Rules, kind: Kind) -> Path:
    return rules.model_folder(rules.model_of("w1" if kind is Kind.NANO else "w2"))


def _agreement(rules: Rules, results: Results) -> Result:
    sample = results.folder / "greedy_sample.json"
    return _module("agreement", [str(_model(rules, Kind.NANO)), str(sample)])[-1]


def _peer(rules: Rules, options: Options) -> Result:
    batches = PEER_BATCHES if not options.quick else tuple(map(str, rules.batches))
    lines = _module("peer", [str(_model(rules, Kind.LARGE)), str(rules.folder), *batches])
    return {line.pop("workload"): line for line in lines}


def _cold_start(rules: Rules, options: Options, *, warm: bool) -> Result:
    """`warm`: what was compiled in earlier starts may be used again, as an image carries it."""
    length = len(rules.latency(0, 1).requests[0].prompt)
    with tempfile.TemporaryDirectory() as scratch:
        settings = write(Path(scratch) / "settings.json", engine_settings(rules, Kind.LARGE, quick=options.quick))
        environment = dict(os.environ) if warm else os.environ | {"TRITON_CACHE_DIR": f"{scratch}/kernels"}
        return dict(cold_start.measure(settings, length, dict(environment)))


def _module(name: str, arguments: list[str]) -> list[dict[str, Any]]:
    """Runs a module of this package in a process of its own and returns its lines of JSON."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.engine.{name}", *arguments],
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=MODULE_LIMIT_S, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@contextmanager
def _announced(what: str) -> Iterator[None]:
    started_at = time.monotonic()
    print(f"{what} …", file=sys.stderr, flush=True)
    yield
    print(f"{what}: {time.monotonic() - started_at:.1f} s", file=sys.stderr, flush=True)
