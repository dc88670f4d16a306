"""`python -m benchmarks.mig`: the planner beside first fit, best fit and minimum fragmentation increment.

Random demand needs nothing; the trace-driven part reads ServeGen's client rates from --data or FORETIDE_DATA and is
left out, with a word, without them. `--quick` measures little and writes nothing; `--bounds` only works out what any
policy could serve at most and writes it beside the last measurement.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.mig.bounds import IN_ORDER, METRIC, SERVED, bounds_of, out_of_reach, with_bounds
from benchmarks.mig.demand import Demands, from_rates, random_rates, random_services
from benchmarks.mig.nodes import timed_plan
from benchmarks.mig.peers import PEERS
from benchmarks.mig.run import Result, run_peer, run_planned
from benchmarks.report import RESULTS, Better, Report, Row, Words, publish
from cli.trace_files import read_trace
from controllers.plans.mig.demand import PlanSettings
from controllers.plans.mig.geometry import Family, family
from forecasting.simulator.servegen import Clients

MORE = 0.10
LOADS = (1.0, 1.2, 1.5)
SERVICES = 200
WORDS = Words(
    title="Partitioning GPUs: the planner beside placement heuristics",
    command="FORETIDE_DATA=<folder of the data sets> make bench-mig",
    about=[
        "H100-80 GPUs serve workers of six MIG profiles in four priority classes; every ten minutes each service asks"
        " for another number of them. The heuristics place one worker at a time and never move one; creating a slice"
        " costs them no time. The planner plans each step anew and may move workers; each that moves is out of service"
        " for five of the ten minutes, which is counted as demand not served.",
        "*Served* is the share of wanted compute slices, over all steps after the first twenty. The peer in each row"
        " is the best of the three; the goal is 10 % more than it.",
    ],
    notes=[
        "Rows of *one class* measure packing alone. With *four classes* every policy serves P0 before P3 when a slice"
        " is free; only the planner takes a slice from a lower class. What it gives up in total for that is in the row"
        " of all demand, what it wins in the row of P0 and P1, whose goal cannot be met where the peer's share is over"
        " 91 %: nobody serves more than all.",
        "The heuristics are written anew from their papers' descriptions, without their authors' code"
        " (`benchmarks/mig/peers.py` says the formulas). They cut"
        " slices beside slices in use, as the planner does here; NVIDIA's MIG manager cannot, it stops a whole node."
        " The rows about nodes plan for that.",
        "The gap is what the solver proved: no plan of that step is worth more than 1 + gap times ours.",
        f"*{METRIC.capitalize()}* is proven as well: each step for itself, all GPUs idle, and moves free. No"
        " planner, with whatever foresight, serves more.",
        f"*{IN_ORDER.capitalize()}* is the most of all demand in any layout that is worth as much as the best of its"
        " step, again of idle GPUs and with free moves. A slice of a class counts eight times one of the next.",
    ],
)
WHAT_NOBODY_COULD = (
    "**What nobody could meet.** 10 % more demand than the best heuristic is more than there is to win here:"
)
WHAT_ORDER_COSTS = (
    "**What the order of classes costs.** Where P0 comes before P3, the profiles that P0 wants decide the layouts, and"
    " some slices fit nobody any more. No plan that is worth as much as the best of its step serves 10 % more demand"
    " here than the best heuristic, which never takes a slice from a lower class:"
)


def main() -> int:
    options = _options()
    one = family("H100-80")
    if options.bounds:
        bounds = [row for each in _workloads(options) for row in bounds_of(one, options.gpus, each)]
        return _publish(with_bounds(Report.read(RESULTS / "mig.json"), bounds))
    rows: list[Row] = []
    for workload in _workloads(options):
        rows += _beside_peers(one, workload, options)
    rows += _timing(one, options)
    if options.quick:
        return 0
    return _publish(Report.of_now(rows))


def _publish(report: Report) -> int:
    about = [*WORDS.about, *_said(WHAT_NOBODY_COULD, report, METRIC), *_said(WHAT_ORDER_COSTS, report, IN_ORDER)]
    for path in publish(report, replace(WORDS, about=about), "mig"):
        print(path)
    return 0


def _said(words: str, report: Report, metric: str) -> list[str]:
    far = out_of_reach(report.rows, metric)
    return ["\n".join([words, "", *(f"- {one}." for one in far)])] if far else []


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.mig", description=__doc__)
    data = os.environ.get("FORETIDE_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None, help="folder with servegen/")
    parser.add_argument("--gpus", type=int, default=1000, help="GPUs of the simulated fleet")
    parser.add_argument("--steps", type=int, default=164, help="steps of ten minutes; the first 20 are not counted")
    parser.add_argument("--bounds", action="store_true", help="only what any policy could serve at most")
    parser.add_argument("--quick", action="store_true", help="60 steps, 100 GPUs; writes nothing")
    options = parser.parse_args()
    if options.quick:
        options.gpus, options.steps = 100, 60
    if options.steps <= 20 or options.gpus < 1:
        parser.error("--steps must be more than 20 and --gpus at least 1: the first 20 steps are not counted.")
    return options


def _workloads(options: argparse.Namespace) -> Iterator[Demands]:
    for load in LOADS:
        for classes in (1, 4):
            rng = random.Random(11)
            kinds = random_services(rng, [1.0] * 6, SERVICES)
            if classes == 1:
                kinds = [(profile, 1) for profile, _ in kinds]
            rates = random_rates(np.random.default_rng(7), SERVICES, options.steps)
            name = f"random demand, {'one class' if classes == 1 else 'four classes'}, load {load:.0%}"
            yield from_rates(name, kinds, rates, options.gpus, load)
    yield from _traces(options)


def _traces(options: argparse.Namespace) -> Iterator[Demands]:
    path = options.data / "servegen" / "m-small-traces.tar.gz" if options.data else None
    if path is None or not path.exists():
        _tell("No ServeGen traces: set --data or FORETIDE_DATA. The trace-driven rows are left out.")
        return
    clients = read_trace(path)
    assert isinstance(clients, Clients), "the archive holds clients' windows"
    busiest = np.argsort(-clients.rate.sum(axis=1), kind="stable")[:SERVICES]
    rates = clients.rate[busiest, : options.steps]
    for load in LOADS[:2]:
        for classes in (1, 4):
            kinds = random_services(random.Random(13), [1.0] * 6, len(busiest))
            if classes == 1:
                kinds = [(profile, 1) for profile, _ in kinds]
            words = "one class" if classes == 1 else "four classes"
            yield from_rates(f"ServeGen m-small, {words}, load {load:.0%}", kinds, rates, options.gpus, load)


def _beside_peers(one: Family, workload: Demands, options: argparse.Namespace) -> list[Row]:
    peers = {name: run_peer(one, options.gpus, workload, rule, seed=5) for name, rule in PEERS.items()}
    settings = PlanSettings(whole_gpus=False)
    ours = run_planned(one, options.gpus, workload, settings, 5, _tell)
    for name, result in {**peers, "ours": ours}.items():
        shares = f"{result.share:.3f}, P0–P1 {result.urgent_share:.3f}, 7g {result.largest_share:.3f}"
        _tell(f"{workload.name}, {name}: {shares}")
    rows = [_row(workload, SERVED, "share", ours, peers, "share")]
    rows += bounds_of(one, options.gpus, workload)
    if sum(ours.wanted[2:]):
        rows.append(_row(workload, "demand of P0 and P1 served", "share", ours, peers, "urgent_share"))
    rows.append(_row(workload, "demand of 7g slices served", "share", ours, peers, "largest_share", goal=False))
    moved = ours.moved / sum(ours.served)
    rows.append(Row(workload.name, "slices moved, of those served", "share", round(moved, 5)))
    rows.append(Row(workload.name, "largest proven gap of a step", "share", float(f"{max(ours.gaps):.2g}"), goal=1e-3))
    rows.append(Row(workload.name, "CPU time of a plan, median", "s", round(statistics.median(ours.cpu_s), 2)))
    return rows


def _row(
    workload: Demands, metric: str, unit: str, ours: Result, peers: dict[str, Result], field: str, goal: bool = True
) -> Row:
    best = max(peers, key=lambda name: float(getattr(peers[name], field)))
    theirs = float(getattr(peers[best], field))
    wanted = round((1 + MORE) * theirs, 4) if goal else None
    return Row(
        workload.name, metric, unit, round(getattr(ours, field), 4), round(theirs, 4), best, wanted, Better.HIGHER
    )


def _timing(one: Family, options: argparse.Namespace) -> list[Row]:
    nodes = 50 if options.quick else 500
    rows = []
    for load in (0.9, 1.5):
        runs = [timed_plan(one, nodes, 8, load, busy=0.6, seed=seed) for seed in range(3)]
        name = f"{nodes} nodes × 8 GPUs, 60 % in use, load {load:.0%}"
        cpu_s = max(run.cpu_s for run in runs)
        _tell(f"{name}: {cpu_s:.2f} s")
        rows.append(Row(name, "CPU time of a plan, worst of 3", "s", round(cpu_s, 2), goal=10.0))
        rows.append(
            Row(name, "proven gap, worst of 3", "share", float(f"{max(run.plan.gap for run in runs):.2g}"), goal=1e-3)
        )
    return rows


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
