"""`python -m benchmarks.scheduling`: every policy and batching mode on a virtual clock, peers in the same run.

Lengths are those of the Azure conversation trace, from --trace or FORETIDE_DATA; without either, made here. `--quick`
takes some seconds and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.report import RESULTS, Report, Row, publish
from benchmarks.scheduling.host_time import N_WAITING, host_time_ms
from benchmarks.scheduling.machine import Ours, Run, Subject, run
from benchmarks.scheduling.page import words
from benchmarks.scheduling.peers import ByPriority, Fcfs, VirtualTokenCounter, VllmLike
from benchmarks.scheduling.rows import batching_rows, class_rows, flood_rows, host_rows, rounded, winners
from benchmarks.scheduling.workloads import Asked, Lengths, at_once, flood, lengths, mixed, steady
from forecasting.profile import LLAMA_8B_H100, Profile
from worker_image.engine.scheduler.settings import Batching, Packing, PolicyName, Scheduling

TRACE = Path("traces") / "azure_llm_2023" / "AzureLLMInferenceTrace_conv.csv.gz"
WHOLE = replace(LLAMA_8B_H100, chunk_tokens=1024)
"""Steps of 1,024 tokens, so that one takes 35 ms: with 2,048, no policy could hold 100 ms."""
SLICE = replace(WHOLE, accelerator="a third of an H100's cache", max_sequences=32, kv_tokens=48_000)
"""Places and cache run out here before the arithmetic does."""
MODES = {
    "continuous": Scheduling(),
    "continuous, first-fit": Scheduling(packing=Packing.FIRST_FIT),
    "adaptive (base 8)": Scheduling(batching=Batching.ADAPTIVE),
    "dynamic (8 to 256, 250 ms)": Scheduling(batching=Batching.DYNAMIC, min_batch=8, max_wait_s=0.25),
    "static (64, 1 s)": Scheduling(batching=Batching.STATIC, max_batch=64, max_wait_s=1.0),
    "static, buckets": Scheduling(batching=Batching.STATIC, packing=Packing.BUCKETS, max_batch=64, max_wait_s=1.0),
}
LOADS = (0.02, 0.3, 0.7)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run."""

    duration_s: float
    seeds: int
    burst: int
    """Requests of the workload that comes at once."""


FULL, QUICK = Size(240.0, 3, 800), Size(40.0, 1, 100)


def subjects(profile: Profile) -> dict[str, Callable[[], Subject]]:
    """By name: ours by the policy's, then the peers."""
    ours = {name.value: lambda name=name: Ours(Scheduling(name), profile) for name in PolicyName}
    return ours | {
        "vLLM fcfs": lambda: VllmLike(Fcfs(), profile),
        "vLLM priority": lambda: VllmLike(ByPriority(), profile),
        "VTC as published": lambda: VllmLike(VirtualTokenCounter(), profile),
    }


def capacity_per_s(found: Lengths, profile: Profile, count: int) -> float:
    """Requests a second of vLLM's default when all come at once."""
    done = run(VllmLike(Fcfs(), profile), at_once(found, count, 1), profile)
    return count / done.ended_s


def every_subject(
    profile: Profile, workloads: list[list[Asked]], tell: Callable[[str], None], until_s: float | None = None
) -> dict[str, list[Run]]:
    runs = {}
    for name, make in subjects(profile).items():
        runs[name] = [run(make(), asked, profile, until_s) for asked in workloads]
        tell(f"  {name}")
    return runs


def measure(found: Lengths, size: Size, tell: Callable[[str], None]) -> list[Row]:
    rows: list[Row] = []
    for profile, name in (
        (WHOLE, "mixed classes, one H100"),
        (SLICE, "mixed classes, 32 places and 48k tokens of cache"),
    ):
        capacity = capacity_per_s(found, profile, size.burst)
        tell(f"{name}: {capacity:.1f} requests/s when all come at once")
        workloads = [mixed(found, capacity, size.duration_s, seed) for seed in range(size.seeds)]
        rows += class_rows(name, every_subject(profile, workloads, tell), profile)
    capacity = capacity_per_s(found, WHOLE, size.burst)
    tell("ten tenants, one floods")
    floods = [flood(found, capacity, size.duration_s * 2 / 3, seed) for seed in range(size.seeds)]
    rows += flood_rows(every_subject(WHOLE, floods, tell, size.duration_s * 2 / 3), size.duration_s * 2 / 3)
    rows += _batching(found, capacity, size, tell)
    tell("CPU time of a step")
    return rows + host_rows(
        {name: (host_time_ms(name), host_time_ms(name, n_waiting=N_WAITING)) for name in PolicyName}
    )


def _batching(found: Lengths, capacity: float, size: Size, tell: Callable[[str], None]) -> list[Row]:
    rows = []
    workloads = {f"{load:.0%} of capacity": steady(found, load * capacity, size.duration_s / 4, 2) for load in LOADS}
    for name, asked in (workloads | {"all at once": at_once(found, size.burst, 1)}).items():
        tell(f"batching, {name}")
        runs = {mode: run(Ours(scheduling, WHOLE), asked, WHOLE) for mode, scheduling in MODES.items()}
        rows += batching_rows(f"batching, {name}", runs)
    return rows


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduling", description=__doc__)
    parser.add_argument("--trace", type=Path, help="a trace of single requests; its lengths are used")
    parser.add_argument("--quick", action="store_true", help="some seconds; writes nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: docs/benchmarks)")
    options = parser.parse_args(arguments)
    data = os.environ.get("FORETIDE_DATA")
    trace = options.trace or (Path(data) / TRACE if data else None)
    found = lengths(trace, longest=SLICE.kv_tokens // 4)
    size = QUICK if options.quick else FULL
    rows = rounded(measure(found, size, lambda line: print(line, file=sys.stderr, flush=True)))
    if options.quick:
        for row in rows:
            print(f"{row.workload}: {row.metric}: {row.ours} {row.unit} (peer {row.peer}, goal {row.goal})")
        return 0
    about = words(found.source, size.duration_s, size.seeds, winners(rows), os.getloadavg()[0])
    for path in publish(Report.of_now(rows), about, "scheduling", options.out):
        print(path)
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
