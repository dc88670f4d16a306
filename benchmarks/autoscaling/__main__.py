"""`python -m benchmarks.autoscaling`: replay, compare, write docs/benchmarks/autoscaling.{json,md} and the plots.

Every cell (trace × fleet × cold start) that is done is kept in the cache folder, and what is under way every five
minutes, so that an interrupted run goes on; `--fresh` does cells again that are done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.autoscaling import decision
from benchmarks.autoscaling.agreement import SPAN_S, Pair, compare
from benchmarks.autoscaling.agreement import rows_of as agreement_rows
from benchmarks.autoscaling.cell import Cell, Plan, run_cells, run_families
from benchmarks.autoscaling.page import words
from benchmarks.autoscaling.plots import plot
from benchmarks.autoscaling.quick import made_lengths, workload
from benchmarks.autoscaling.rows import rows_of, sensitivity, summary
from benchmarks.autoscaling.workloads import Lent, Workload, cache_folder, from_file, lent_by, servegen, sizing_of
from benchmarks.report import RESULTS, Report, Row, publish
from cli.trace_files import read_trace
from forecasting.profile import LLAMA_8B_H100
from forecasting.simulator.arrivals import lengths_of
from forecasting.simulator.autoscalers.common import Sizing
from forecasting.simulator.requests import Requests
from forecasting.simulator.servegen import Clients
from forecasting.simulator.world import ColdStart, Slo, World

COLD_STARTS = (60.0, 180.0, 480.0)
FLEETS = (("m-large", 5.0), ("m-small", 20.0))
TUNE_DAYS = (0, 7)
TEST_DAYS = (7, 14)
LENGTHS = Path("azure_llm_2023") / "AzureLLMInferenceTrace_conv.csv.gz"


@dataclass(frozen=True, slots=True)
class Study:
    """What a run does."""

    workloads: list[tuple[Workload, Sizing]]
    cold_starts: Sequence[float]
    plan: Plan
    publishes: bool


def main(arguments: list[str]) -> int:
    """Run, print, write. 0 whether or not the goals are met: a goal missed is a result."""
    options = _options().parse_args(arguments)
    study = _study(options)
    cells: list[Cell] = []
    agreement: list[Row] = []
    for each, sizing in study.workloads:
        found = _finished(each, study) if options.finished else _cells(each, sizing, study, options)
        if not found:
            continue
        cells += found
        print("\n".join(summary(found)), flush=True)
        agreement += _agreement(each, sizing)
        if study.publishes:
            profile_rows = sensitivity(LLAMA_8B_H100, each.make(0).lengths, Slo())
            _publish(cells, [*agreement, *profile_rows, *decision.rows()], options.out)
    if not study.publishes:
        for row in [*(row for cell in cells for row in rows_of(cell)), *agreement]:
            print(f"  {row.metric}: {'–' if row.ours is None else f'{row.ours:.4g}'} {row.unit}")
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoscaling", description=__doc__.splitlines()[0])
    folder = os.environ.get("FORETIDE_DATA")
    data = Path(folder) / "traces" if folder else None
    parser.add_argument(
        "--data", type=Path, default=data, help="folder with servegen/ and azure_llm_2023/ (traces/ of FORETIDE_DATA)"
    )
    parser.add_argument("--trace", type=Path, help="run this trace instead (any format that `foretide simulate` reads)")
    parser.add_argument("--model", choices=[each for each, _ in FLEETS], action="append", help="only these of ServeGen")
    parser.add_argument("--fleet", type=float, help="mean fleet to thin a trace to (replicas)")
    parser.add_argument("--cold-start", type=float, action="append", help="seconds; may be repeated")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the test days")
    parser.add_argument("--tune-days", type=int, nargs=2, default=TUNE_DAYS, metavar=("FIRST", "END"), help="from 0")
    parser.add_argument("--test-days", type=int, nargs=2, default=TEST_DAYS, metavar=("FIRST", "END"), help="from 0")
    parser.add_argument("--quick", action="store_true", help="a minute, on a trace made here; writes nothing")
    parser.add_argument("--finished", action="store_true", help="only write the page of the cells that are done")
    parser.add_argument("--fresh", action="store_true", help="do cells again that are done")
    parser.add_argument(
        "--family", action="append", default=[], help="of cells that are done, this family anew; may be repeated"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="where results go")
    return parser


def _study(options: argparse.Namespace) -> Study:
    slo, profile = Slo(), LLAMA_8B_H100
    if options.quick:
        sizing = sizing_of(profile, lengths_of(*made_lengths()), slo)
        made = workload(options.fleet or 5 * sizing.requests_per_s)
        return Study([(made, sizing)], options.cold_start or (180.0,), Plan(1, full=False), False)
    if options.data is None:
        raise SystemExit("Name the folder of traces with --data, or the one above it in FORETIDE_DATA; or use --quick.")
    lent, sizing = _lent(options.data, slo)
    cold_starts, plan = options.cold_start or COLD_STARTS, Plan(options.seeds)
    if options.trace:
        own = _own_sizing(options.trace, sizing, slo)
        found = from_file(options.trace, lent, options.fleet or 5.0, own, profile, slo)
        return Study([(found, own)], cold_starts, plan, options.out != RESULTS)
    wanted = options.model or [model for model, _ in FLEETS]
    workloads = [(_servegen(options, model, fleet, lent, sizing), sizing) for model, fleet in FLEETS if model in wanted]
    return Study(workloads, cold_starts, plan, True)


def _lent(data: Path, slo: Slo) -> tuple[Lent, Sizing]:
    path = data / LENGTHS
    if not path.exists():
        raise SystemExit(f"{path} is missing: the lengths come from there. Give the folder of traces with --data.")
    found = read_trace(path)
    assert isinstance(found, Requests)
    lent = lent_by(found)
    return lent, sizing_of(LLAMA_8B_H100, lent.lengths, slo)


def _own_sizing(path: Path, lent: Sizing, slo: Slo) -> Sizing:
    found = read_trace(path)
    return lent if isinstance(found, Clients) else sizing_of(LLAMA_8B_H100, lent_by(found).lengths, slo)


def _servegen(options: argparse.Namespace, model: str, fleet: float, lent: Lent, sizing: Sizing) -> Workload:
    clients = read_trace(options.data / "servegen" / f"{model}-traces.tar.gz")
    assert isinstance(clients, Clients)
    tune, test = tuple(options.tune_days), tuple(options.test_days)
    return servegen(f"ServeGen {model}", clients, lent, options.fleet or fleet, sizing, tune, test)


def _cells(each: Workload, sizing: Sizing, study: Study, options: argparse.Namespace) -> list[Cell]:
    """The cells of a workload: those that are done are read, but for families that are asked for anew; the others run
    side by side."""
    paths = {load_s: _path(each, load_s, study.plan) for load_s in study.cold_starts}
    missing = [load_s for load_s, path in paths.items() if options.fresh or not study.plan.full or not path.exists()]
    done = [Cell.read(path) for load_s, path in paths.items() if load_s not in missing]
    known = sorted({point.family for cell in done for point in cell.points})
    if unknown := sorted(set(options.family) - set(known)):
        raise SystemExit(f"--family: no cell of {each.name} that is done has {unknown}; there are {known}.")
    if missing:
        for cell in run_cells(each, _worlds(missing), sizing, study.plan, _progress(each.name)):
            cell.write(paths[cell.cold_start_s])
    if options.family:
        worlds = _worlds([cell.cold_start_s for cell in done])
        for cell in run_families(each, worlds, sizing, study.plan, _progress(each.name), options.family, done):
            cell.write(paths[cell.cold_start_s])
    return [Cell.read(paths[load_s]) for load_s in study.cold_starts]


def _worlds(cold_starts_s: Sequence[float]) -> list[World]:
    return [World(cold_start=ColdStart(load_s), slo=Slo(), max_replicas=100) for load_s in cold_starts_s]


def _finished(each: Workload, study: Study) -> list[Cell]:
    paths = [_path(each, load_s, study.plan) for load_s in study.cold_starts]
    return [Cell.read(path) for path in paths if path.exists()]


def _path(each: Workload, load_s: float, plan: Plan) -> Path:
    key = hashlib.sha256(f"{each.name} {each.tune} {each.test} {load_s} {plan}".encode()).hexdigest()[:16]
    return cache_folder() / f"cell-{key}.json"


class _progress:
    """One line that is written over, on a terminal; elsewhere a line a tenth."""

    def __init__(self, name: str) -> None:
        self._name, self._said = name, ""

    def __call__(self, stage: str, share: float) -> None:
        line = f"{self._name}: {stage} {share:4.0%}"
        if sys.stderr.isatty():
            print(f"\r{line}", end="" if share < 1 else "\n", file=sys.stderr, flush=True)
        elif line[:-2] != self._said:
            self._said = line[:-2]
            print(line, file=sys.stderr, flush=True)


def _agreement(each: Workload, sizing: Sizing) -> list[Row]:
    """Kept like the cells."""
    key = hashlib.sha256(f"{each.name} {each.test} {sizing}".encode()).hexdigest()[:16]
    path = cache_folder() / f"agreement-{key}.json"
    if not path.exists():
        pairs = compare(each.sample(SPAN_S), World(max_replicas=100), sizing)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(pair) for pair in pairs]), encoding="utf-8")
    return agreement_rows(each.name, [Pair(**pair) for pair in json.loads(path.read_text(encoding="utf-8"))])


def _publish(cells: Sequence[Cell], agreement: Sequence[Row], folder: Path) -> None:
    report = Report.of_now([*(row for cell in cells for row in rows_of(cell)), *agreement])
    plots = [plot(cell, folder) for cell in cells]
    publish(report, words(cells, [path.name for path in plots]), "autoscaling", folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
