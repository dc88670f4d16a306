"""`python -m benchmarks.engine run|report`: measure what is not yet measured, or write the page from what is.

A run goes on where an earlier one stopped: a stage whose file lies in the output folder is not measured again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.engine import quick
from benchmarks.engine.page import report, words
from benchmarks.engine.results import Results
from benchmarks.engine.run import Options, run
from benchmarks.engine.workloads import Rules
from benchmarks.report import REPOSITORY, RESULTS, publish

NOTES = Path(__file__).parent / "findings.txt"
"""What the numbers were found to be bound by, one paragraph a line."""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("run", help="measure")
    measure.add_argument("--workloads", type=Path, help="the folder of the rule files and of models/NAME/config.json")
    measure.add_argument("--quick", action="store_true", help="tiny workloads on a tiny shape, for the harness itself")
    measure.add_argument("--out", type=Path, required=True, help="folder of the results; finished stages are kept")
    measure.add_argument("--only", help="names of stages, with commas between (default: all)")
    measure.add_argument("--repeats", type=int, default=3, help="repeats of the short workloads (default: 3)")
    measure.add_argument("--commit", help="commit of the code (default: asks git)")
    measure.add_argument("--limit-s", type=float, default=3600.0, help="no stage begins after this many seconds")
    written = commands.add_parser("report", help="write the page from a folder of results")
    written.add_argument("results", type=Path)
    written.add_argument("--to", type=Path, default=RESULTS, help="folder of the page (default: docs/benchmarks)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.command == "report":
        for path in publish(report(Results(options.results)), words(NOTES), "engine", options.to):
            print(path)
        return 0
    only = frozenset(options.only.split(",")) if options.only else None
    with tempfile.TemporaryDirectory() as scratch:
        folder = quick.write_rules(Path(scratch)) if options.quick else options.workloads
        if folder is None:
            raise SystemExit("name the folder of the rule files with --workloads, or try the harness with --quick.")
        run(
            Rules(folder.resolve()),
            Results(options.out),
            Options(options.quick, only, options.repeats, options.limit_s, options.commit),
        )
    print(f"results in {options.out}; the page: python -m benchmarks.engine report {options.out}")
    return 0


if __name__ == "__main__":
    assert REPOSITORY.is_dir()
    sys.exit(main(sys.argv[1:]))
