"""`python -m e2e.faults [--only CAMPAIGN,…] [--seed 7] [--minutes N]`: the campaigns, taken up where they stopped.

A whole run writes its page; `--report` only does that, from the lines there are.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import commit
from e2e.cluster.errors import ClusterError
from e2e.faults import report
from e2e.faults.campaign import CAMPAIGNS, whole
from e2e.faults.campaigns import done
from e2e.faults.ground import ground
from e2e.faults.outcomes import Outcome, add, read
from e2e.faults.telling import Doubtful
from kube.errors import KubeError

ATTEMPTS = 8


def main(arguments: Sequence[str]) -> int:
    asked = _parser().parse_args(arguments)
    code = 0
    if not asked.report:
        code = _try(asked)
    outcomes = list(read(asked.out).values())
    if outcomes and not asked.only:
        for path in report.write(outcomes, commit()):
            say(f"Wrote {path}")
    return code


def _try(asked: argparse.Namespace) -> int:
    """Again on new ground when the machine was too busy for the last one: what is done is done."""
    for left in range(ATTEMPTS - 1, -1, -1):
        try:
            asyncio.run(run(asked))
        except (ClusterError, Doubtful, KubeError, TimeoutError) as error:
            say(f"{error} {'Again, on new ground.' if left else 'Given up; the same command goes on.'}")
        else:
            return 0
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=7, help="order of the cases (default: 7)")
    parser.add_argument("--only", help=f"some of {', '.join(CAMPAIGNS)}, with commas between; no page")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so long; the same command goes on")
    parser.add_argument("--out", type=Path, default=Path("build/faults/campaign.jsonl"), help="lines of what was done")
    parser.add_argument("--report", action="store_true", help="only write the page, from the lines there are")
    return parser


async def run(asked: argparse.Namespace) -> None:
    """What is not done yet, campaign after campaign; controls first, for without them nothing is proved."""
    wanted = asked.only.split(",") if asked.only else list(CAMPAIGNS)
    ends_s = time.monotonic() + asked.minutes * 60
    async with ground() as standing:
        say("The control plane stands; the undisturbed story is told twice.")
        await standing.lives.begin()
        async for case in whole(standing, wanted, random.Random(asked.seed), read(asked.out)):
            if time.monotonic() > ends_s:
                say("The time is over; the same command goes on.")
                return
            outcome = await done(standing, case)
            add(asked.out, [outcome])
            say(_line(outcome))


def _line(one: Outcome) -> str:
    said = "found" if one.plant and one.wrong else "; ".join(one.wrong) or ("as it should" if one.met else "not met")
    planted = f" [{one.plant}]" if one.plant else ""
    return f"{one.campaign}{planted}, {one.case}: {said} ({one.took_s:.1f} s)"


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
