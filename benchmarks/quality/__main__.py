"""`python -m benchmarks.quality [--quick]`: simulates, and writes docs/benchmarks/quality.{json,md}."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.quality.drift import measure
from benchmarks.report import RESULTS, Report, Words, publish

WORDS = Words(
    title="The quality of answers",
    command="make bench-quality",
    about=(
        "How often the watch over answers tells a drift that is none, and how soon it finds one, by how much a window"
        " resembles the one before it. 100 services for each row, made with seeds: the mean of a window is an AR(1)"
        " series with a deviation of a tenth; the first day is the baseline, then nothing changes for 30 days, or the"
        " mean changes at once and for good.",
    ),
    notes=(
        "The peer is the same test with the same baselines, taken for windows that are independent of each other: what"
        " was done before, and what a control chart from a textbook does. It finds changes sooner, and also those that"
        " are none.",
        "A correlation of 0.85 has no goal: a day of such windows is worth eight independent ones, and nobody can know"
        " from it what is usual.",
        "A change of 2 deviations is as large as the slack of the test: it is found by luck.",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.quality", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ten services a row; writes to build/")
    quick = parser.parse_args().quick
    rows = measure(10 if quick else 100)
    for path in publish(Report.of_now(rows), WORDS, "quality", Path("build") if quick else RESULTS):
        print(path)


if __name__ == "__main__":
    main()
