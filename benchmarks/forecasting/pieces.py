"""Measured pieces, kept on disk, so that a run that was stopped goes on where it was.

A piece is kept under its name and a digest of the code that made it and of the data it was made from: when either
changes it is measured again. Pieces are plain JSON values.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.report import REPOSITORY
from forecasting.series import Array


@dataclass(frozen=True, slots=True)
class Job:
    """One piece: `work(*arguments)` in a process of its own. name: unique within its measure."""

    name: str
    digest: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Pieces:
    """A folder of finished pieces."""

    folder: Path
    workers: int

    def all(self, measure: str, jobs: Sequence[Job]) -> list[Any]:
        """The pieces, in the order of the jobs; those that are not kept are measured now."""
        done = {job.name: self._read(measure, job) for job in jobs}
        open_jobs = [job for job in jobs if done[job.name] is None]
        with ProcessPoolExecutor(max_workers=self.workers) as pool:
            running = {pool.submit(job.work, *job.arguments): job for job in open_jobs}
            for at, future in enumerate(as_completed(running), 1):
                job = running[future]
                done[job.name] = future.result()
                self._write(measure, job, done[job.name])
                _say(f"\r{measure}: {len(jobs) - len(open_jobs) + at} of {len(jobs)} ")
        _say(f"\r{measure}: {len(jobs)} of {len(jobs)}, {len(open_jobs)} measured now\n")
        return [done[job.name] for job in jobs]

    def _path(self, measure: str, job: Job) -> Path:
        safe = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in job.name)
        return self.folder / measure / f"{safe}-{job.digest}.json"

    def _read(self, measure: str, job: Job) -> Any:
        path = self._path(measure, job)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _write(self, measure: str, job: Job, value: Any) -> None:
        path = self._path(measure, job)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(value), encoding="utf-8")
        partial.replace(path)


MEASURED: Final = ("series", "forecast", "gaps", "backtest", "ensemble", "intervals", "refresh", "metrics")
"""Modules of the library that the measures use, beside the models and the anomaly scores."""


def code_digest() -> str:
    """Of the code that makes the numbers: not of the pages, nor of what the library does besides."""
    library = REPOSITORY / "forecasting"
    files = [library / f"{name}.py" for name in MEASURED]
    files += sorted(path for folder in ("models", "anomalies") for path in (library / folder).glob("*.py"))
    files += [REPOSITORY / "benchmarks" / "forecasting" / f"{name}.py" for name in ("rolling", "measures", "made")]
    return digest([path.read_bytes() for path in files])


def digest(parts: Iterable[bytes | str | Array]) -> str:
    found = hashlib.sha256()
    for part in parts:
        raw = np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else part
        found.update(raw.encode() if isinstance(raw, str) else raw)
    return found.hexdigest()[:16]


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
