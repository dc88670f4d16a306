"""`python -m tests.fuzz.campaign [--minutes 20] [TARGET…]`: all targets one after the other, and what they found.

The corpus is kept between campaigns, outside of the tree, so that each goes on from what the last one reached. Exits
with 1 where anything was found: a crash, more than ten seconds, or more than 2 GiB.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import TARGETS

LIMITS = ("-timeout=10", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1")
_RUNS = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_COVERED = re.compile(r"cov: (\d+)")


@dataclass(frozen=True)
class Outcome:
    target: str
    runs: int
    covered: int
    """Edges of our code that some input reached."""
    found: tuple[Path, ...]
    said: str

    @property
    def ended_well(self) -> bool:
        return self.runs > 0 and not self.found


def run(target: str, seconds: int, cache: Path) -> Outcome:
    findings = cache / "findings" / target
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    command = [sys.executable, "-m", "tests.fuzz.one", target, str(cache / "corpus" / target)]
    options = [*LIMITS, f"-max_total_time={seconds}", f"-artifact_prefix={findings}/"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    runs, covered = _RUNS.findall(said), _COVERED.findall(said)
    found = tuple(sorted(set(findings.iterdir()) - before))
    return Outcome(target, int(runs[-1]) if runs else 0, int(covered[-1]) if covered else 0, found, said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all without any")
    parser.add_argument("--minutes", type=float, default=20.0, help="of all targets together")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/foretide/fuzz")
    args = parser.parse_args()
    if unknown := set(args.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    targets = args.targets or list(TARGETS)
    seconds = max(int(args.minutes * 60 / len(targets)), 1)
    os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:1], os.environ.get("PYTHONPATH", "")])
    outcomes = [_told(run(target, seconds, args.cache)) for target in targets]
    sys.exit(not all(outcome.ended_well for outcome in outcomes))


def _told(outcome: Outcome) -> Outcome:
    found = f"FOUND {', '.join(map(str, outcome.found))}" if outcome.found else "nothing found"
    print(f"{outcome.target:16} {outcome.runs:9,} runs {outcome.covered:6,} edges  {found}", flush=True)
    if not outcome.ended_well:
        print(outcome.said[-6000:], file=sys.stderr, flush=True)
    return outcome


if __name__ == "__main__":
    main()
