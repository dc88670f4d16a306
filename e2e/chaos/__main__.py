"""`python -m e2e.chaos [--seed 7] [--only KIND=N,…] [--out FILE]`: a campaign, taken up where it stopped.

A whole one writes its page; `--report` only does that, from the lines there are.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import commit
from e2e.chaos import report
from e2e.chaos.ground import GPU_SERVICE, LANES, Ground, prepared
from e2e.chaos.outcomes import read
from e2e.chaos.schedule import BY_NAME, Fault, campaign
from e2e.chaos.stage import say, started
from e2e.cluster.errors import ClusterError
from e2e.cluster.progress import Progress
from e2e.target import choose

QUIET_S = 300.0


def main() -> int:
    asked = _parser().parse_args()
    faults = campaign(asked.seed, LANES, GPU_SERVICE, _counts(asked.only))
    failed = 0 if asked.report else _try(faults, asked)
    outcomes, quiet = read(asked.out)
    if outcomes and asked.only is None:
        report.write(list(outcomes.values()), quiet, commit())
    return failed


def _try(faults: Sequence[Fault], asked: argparse.Namespace) -> int:
    try:
        run(faults, asked.out, asked.quiet, asked.minutes)
    except* ClusterError as found:
        for error in found.exceptions:
            print(error, file=sys.stderr)
        return_code = 1
    else:
        return_code = 0
    return return_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=7, help="which campaign (default: 7)")
    parser.add_argument("--only", help="kinds and how many of each, such as 'process kill=2,out of memory=1'; no page")
    parser.add_argument("--quiet", type=float, default=QUIET_S, metavar="SECONDS", help="control period before it")
    parser.add_argument("--minutes", type=float, default=None, help="stop after so long; the same command goes on")
    parser.add_argument("--out", type=Path, default=Path("build/chaos/campaign.jsonl"), help="lines of what was done")
    parser.add_argument("--report", action="store_true", help="only write the page, from the lines there are")
    return parser


def _counts(text: str | None) -> dict[str, int] | None:
    if text is None:
        return None
    pairs = (part.partition("=") for part in text.split(","))
    found = {name.strip(): int(number or 1) for name, _, number in pairs}
    return dict.fromkeys(BY_NAME, 1) if list(found) == ["each"] else found


def run(faults: Sequence[Fault], out: Path, quiet_s: float, minutes: float | None) -> None:
    """What of the campaign is not done yet. Raises ClusterError where there is no cluster to break."""
    target = choose(nodes=2, progress=Progress())
    if target.cluster is None:
        raise ClusterError(f"Faults need a cluster that may be broken; {target.name} is not ours.")
    done, quiet = read(out)
    left = [fault for fault in faults if fault.number not in done]
    with prepared(target, out.parent) as ground:
        asyncio.run(_run(ground, left, out, quiet_s - sum(one.lasted_s for one in quiet), minutes))


async def _run(ground: Ground, left: Sequence[Fault], out: Path, quiet_s: float, minutes: float | None) -> None:
    async with started(ground, [*LANES, GPU_SERVICE], out, say) as it:
        if quiet_s > 0:
            await it.quiet(quiet_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if minutes is None else minutes * 60):
                await it.run(left)


if __name__ == "__main__":
    sys.exit(main())
