"""`python -m benchmarks.control_plane`: run it, write the results, say what was missed."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.control_plane.rows import WORDS, rows
from benchmarks.control_plane.run import Bench, Findings
from benchmarks.control_plane.scale import Scale
from benchmarks.control_plane.subject import ours, peer
from benchmarks.report import RESULTS, Report, Row, number, publish
from e2e.cluster.controlplane import ControlPlane
from e2e.cluster.errors import ClusterError
from e2e.cluster.progress import Progress

FOLDER_BYTES: Final = 4 * 1024**3
"""Of which etcd uses a few hundred MB."""


def parse(arguments: list[str]) -> argparse.Namespace:
    plain = Scale()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control_plane", description=__doc__)
    parser.add_argument("--objects", type=int, default=plain.objects, help="InferenceServices (default: %(default)s)")
    parser.add_argument("--pods", type=int, default=plain.pods, help="worker pods in all (default: %(default)s)")
    parser.add_argument("--edits", type=int, default=plain.edits, help="spec edits a window (default: %(default)s)")
    parser.add_argument(
        "--window",
        type=float,
        default=plain.window_s,
        help="seconds of the idle and pod windows (default: %(default)s)",
    )
    parser.add_argument(
        "--restarts", type=int, default=plain.restarts, help="restarts of the operator (default: %(default)s)"
    )
    parser.add_argument("--no-peer", action="store_true", help="measure the operator only")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: docs/benchmarks)")
    parser.add_argument(
        "--profile", type=Path, help="write cProfile data of each life beside this path, and no results"
    )
    parser.add_argument("--limit", type=float, default=900.0, help="give up after this many seconds")
    return parser.parse_args(arguments)


async def measure(options: argparse.Namespace, scale: Scale, say: Progress) -> tuple[Findings, Findings | None]:
    async with asyncio.timeout(options.limit):
        with (
            TemporaryDirectory(prefix="foretide-bench-", dir=_fast_folder()) as folder,
            ControlPlane(Path(folder), progress=say) as plane,
        ):
            async with Bench.on(plane, scale, say) as bench:
                await bench.declare()
                our_findings = await bench.measure(ours(options.profile), scale.restarts)
                peer_findings = (
                    None if options.no_peer else await bench.measure(peer(scale.peer_status_every_s), restarts=1)
                )
                for problem in bench.stand_in.problems:
                    say.say(f"Doubtful: {problem}")
                return our_findings, peer_findings


def _fast_folder() -> Path | None:
    """Memory, if there is enough; else wherever temporary files go."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > FOLDER_BYTES else None


def main(arguments: list[str]) -> int:
    options, say = parse(arguments), Progress()
    scale = Scale(
        objects=options.objects,
        pods=options.pods,
        edits=options.edits,
        window_s=options.window,
        restarts=options.restarts,
    )
    try:
        found = rows(scale, *asyncio.run(measure(options, scale, say)))
    except KeyboardInterrupt:
        say.say("Interrupted: nothing was written.")
        return 130
    except (ClusterError, TimeoutError) as error:
        say.say(f"No results: {error or f'not within {options.limit:.0f} s'}")
        return 1
    for row in found:
        say.say(_line(row))
    if options.profile is None:
        for path in publish(Report.of_now(found), WORDS, "control_plane", options.out):
            say.say(f"Wrote {path}")
    return 0


def _line(row: Row) -> str:
    verdict = "" if row.met is None else f", goal {number(row.goal)}: {'met' if row.met else 'MISSED'}"
    beside = "" if row.peer_name is None else f" ({row.peer_name}: {number(row.peer)})"
    return f"  {row.workload} | {row.metric}: {number(row.ours)} {row.unit}{beside}{verdict}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
