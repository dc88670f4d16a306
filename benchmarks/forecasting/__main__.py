"""`python -m benchmarks.forecasting`: measure, write the results and the page, say what was missed.

Data sets are named by options or by FORETIDE_DATA; what is not there is left out and said to be. `--quick` measures
self-made data in seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.forecasting import made, measures, plots
from benchmarks.forecasting.data import UnknownData, is_m4, is_nab, read_m4, read_nab, read_trace
from benchmarks.forecasting.pieces import Pieces
from benchmarks.forecasting.rolling import LONG_STEPS, WARM_DAYS
from benchmarks.report import REPOSITORY, RESULTS, Report, Row, Words, publish
from forecasting.series import DAY_S, Series

ORIGINS: Final = 84
QUICK_ORIGINS: Final = 6
DEFAULT_TRACES: Final = (
    "**/DERIVED_*.csv.gz",
    "**/*-traces.tar.gz",
    "**/AzureLLM*.csv.gz",
    "**/conversation_trace.jsonl.gz",
)
"""Where they are looked for under `traces/` of the data folder."""


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    try:
        folders, files = sources(options)
        rows = measured(options, folders, files)
    except UnknownData as error:
        print(error, file=sys.stderr)
        return 2
    for path in publish(Report.of_now(rows), words(options, os.getloadavg()[0]), "forecasting", options.out):
        print(path)
    return 0 if all(row.met is not False for row in rows) else 1


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m benchmarks.forecasting", description=__doc__)
    found.add_argument("--data", type=Path, default=os.environ.get("FORETIDE_DATA"), help="folder of the data sets")
    found.add_argument("--series", type=Path, action="append", help="an M4 or NAB folder, instead of those in --data")
    found.add_argument("--trace", type=Path, action="append", help="a request trace, instead of those in --data")
    found.add_argument("--services", type=int, default=measures.FLEET, help="of the speed test (default: %(default)s)")
    found.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    found.add_argument("--quick", action="store_true", help="seconds: self-made data, a few services")
    found.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: docs/benchmarks)")
    found.add_argument(
        "--state", type=Path, default=REPOSITORY / "build" / "bench-forecasting", help="folder of finished pieces"
    )
    return found


def sources(options: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Folders of series and files of traces. Raises: UnknownData where a named one is not there."""
    named = [*(options.series or []), *(options.trace or [])]
    if named or options.quick or options.data is None:
        missing = [path for path in named if not path.exists()]
        if missing:
            raise UnknownData(f"{missing[0]}: there is no such file or folder.")
        return options.series or [], options.trace or []
    folder = Path(options.data)
    if not folder.is_dir():
        raise UnknownData(f"{folder}: there is no such folder. Set --data or FORETIDE_DATA to that of the data sets.")
    series = [path for path in sorted(folder.iterdir()) if path.is_dir() and (is_m4(path) or is_nab(path))]
    traces = [path for pattern in DEFAULT_TRACES for path in sorted((folder / "traces").glob(pattern))]
    return series, traces


def measured(options: argparse.Namespace, folders: list[Path], files: list[Path]) -> list[Row]:
    pieces = Pieces(options.state, options.workers)
    rows: list[Row] = []
    for folder in folders:
        rows += of_folder(pieces, folder)
    for path in files:
        rows += of_trace(pieces, path.name.split(".")[0], read_trace(path), options)
    if options.quick or not (folders or files):
        rows += measures.m4(pieces, made.hourly(4), "self-made hourly series, 48 h ahead")
        rows += measures.nab(pieces, made.watched(3), "self-made metrics with a jump each")
        rows += of_trace(pieces, "self-made service", [made.service(0)], options)
    rows += measures.speed(8 if options.quick else options.services, options.workers)
    return [replace(row, goal=None) for row in rows] if options.quick else rows


def of_folder(pieces: Pieces, folder: Path) -> list[Row]:
    if is_m4(folder):
        series = read_m4(folder)
        return measures.m4(pieces, series, f"{folder.name}: {len(series)} series, 48 h ahead")
    if is_nab(folder):
        found = read_nab(folder)
        return measures.nab(
            pieces, found, f"{folder.name}: {len(found)} files, {sum(len(f.windows) for f in found)} windows"
        )
    raise UnknownData(f"{folder}: neither an M4 folder (*-train.csv) nor a NAB one (labels/combined_windows.json).")


def of_trace(pieces: Pieces, name: str, series: list[Series], options: argparse.Namespace) -> list[Row]:
    usable = [one for one in series if one.n_observed >= 100]
    if not usable:
        raise UnknownData(f"{name}: fewer than 100 steps with a measurement; a longer recording is needed.")
    found = pieces.all(f"trace {name}", measures.trace_jobs(usable, QUICK_ORIGINS if options.quick else ORIGINS))
    workload = f"{name}: {len(usable)} series of {usable[0].step_s:g} s steps, {LONG_STEPS} steps ahead"
    if len(usable) == 1:
        plots.draw(usable[0], options.out)
    rows = measures.traces(found, workload)
    return rows if _has_days(usable[0]) else [replace(row, goal=None) for row in rows]


def _has_days(series: Series) -> bool:
    """Only a recording with days to hold out is held to the goals that are about them."""
    return len(series) * series.step_s > WARM_DAYS * DAY_S


def words(options: argparse.Namespace, load: float) -> Words:
    pictures = sorted(path.name for path in options.out.glob("forecasting-*.svg"))
    return Words(
        title="Forecasts, intervals and anomaly scores",
        command="FORETIDE_DATA=<folder of the data sets> make bench-forecasting",
        about=[
            "`forecasting.refresh`, as the operator calls it, on public data: M4 hourly and request traces of LLM "
            "services; the anomaly detector on the Numenta Anomaly Benchmark; the time to refresh a fleet. All rows "
            "come from the same defaults.",
            *(f"![A forecast and its intervals]({picture})" for picture in pictures),
        ],
        notes=[
            "Rolling origins: the forecast at each origin knows what came before it and no more. A trace of two weeks "
            "is tested from its eighth day on, a shorter one in its second half.",
            "Skill is 1 - loss ÷ the reference's, with a 95 % bootstrap interval over series and days; the references' "
            "p95 is their forecast with a split conformal margin of the week before. In a recording without two days "
            "the seasonal reference is persistence too.",
            "The NAB threshold is the best one for the corpus, as that benchmark does; the default one is what a "
            "detector has before anybody chose.",
            "What was looked at while this was made: these M4 and NAB halves, and of the traces the totals of m-large, "
            "m-small and deepseek-r1 and the twelve largest clients of the first two. The clients measured here are "
            "the four next in size, which were not looked at. How far out intervals are read was chosen on days five "
            "to seven, before those that are measured.",
            "Coverage is over all steps ahead together; a goal of 2 points is the distance from nominal, and "
            "is for recordings of over a week: those of an hour or a day have no days to hold out.",
            f"The load average at the end was {load:.1f}: beyond the number of CPUs other work slowed the refresh "
            "of the fleet, whose wall time then says less than its CPU time.",
            *(
                ["A quick run: few origins of self-made data show that it works; it is held to no goal."]
                * options.quick
            ),
        ],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
