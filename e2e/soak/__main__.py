"""`python -m e2e.soak [--minutes 30]`: mixed load on a cluster of our own, and how large every process is meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import aiohttp

from benchmarks.report import Report, Row, Words, publish
from crds.contract import GATEWAY_ADMIN_PORT, WORKER_ADMIN_PORT
from e2e.chaos.ground import HOME, LANES, Ground, prepared
from e2e.chaos.stage import say, started
from e2e.cluster.errors import ClusterError
from e2e.cluster.progress import Progress
from e2e.install import SYSTEM
from e2e.soak.levels import Sample, level, read
from e2e.soak.strangers import Stranger
from e2e.target import choose
from kube.client import Client
from kube.resources import PODS

WHOLE_MINUTES: Final = 30.0
EVERY_S: Final = 10.0
SERVICES: Final = LANES[:2]
MOST_GROWTH_PERCENT: Final = 3.0
MOST_HANDLES: Final = 5.0
PORTS: Final = {
    "foretide-gateway": GATEWAY_ADMIN_PORT,
    "foretide-operator": 8082,
    "foretide-model-cache": 8083,
    "foretide-worker": WORKER_ADMIN_PORT,
}
"""Admin ports by the pods' name label."""
Samples = dict[tuple[str, str], list[Sample]]
"""(kind of process, pod) → what it said of itself."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m e2e.soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=WHOLE_MINUTES, help="how long; one of less than 30 writes no page"
    )
    asked = parser.parse_args()
    found: list[Row] = []
    try:
        found = _soaked(asked.minutes * 60)
    except* ClusterError as group:
        print(*group.exceptions, sep="\n", file=sys.stderr)
    for row in found:
        say(f"{row.workload}: {row.metric}: {row.ours} {row.unit}{' (missed)' if row.met is False else ''}")
    if found and asked.minutes >= WHOLE_MINUTES:
        publish(Report.of_now(found), _WORDS, "soak")
    return 0 if found else 1


def _soaked(lasts_s: float) -> list[Row]:
    target = choose(nodes=2, progress=Progress())
    if target.cluster is None:
        raise ClusterError(f"A soak needs a cluster of its own; {target.name} is not ours.")
    with prepared(target, Path("build/soak"), gpu_nodes=False) as ground:
        return asyncio.run(_run(ground, lasts_s))


async def _run(ground: Ground, lasts_s: float) -> list[Row]:
    samples: Samples = {}
    out = Path("build/soak/soak.jsonl")
    async with started(ground, SERVICES, out, say) as campaign, aiohttp.ClientSession() as session:
        strangers = [Stranger(session, ground.url, ground.key, name) for name in SERVICES]
        running = [asyncio.create_task(one.run()) for one in strangers]
        await _watch(campaign.client, session, samples, lasts_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        asked = [one for probe in campaign.probes.values() for one in probe.take(time.monotonic())]
    lost = Counter(one.trouble for one in asked if one.trouble)
    unexpected = sum((one.unexpected for one in strangers), Counter[str]())
    for what, number in (lost + unexpected).items():
        say(f"{number} times: {what}")
    where, done = "mixed load", sum(one.done.total() for one in strangers)
    return [
        Row(where, "lasted", "s", round(lasts_s)),
        Row(where, "requests and streams", "requests", float(len(asked))),
        Row(where, "of these, lost or changed", "requests", float(lost.total()), goal=0),
        Row(where, "of clients that mean no good", "requests", float(done)),
        Row(where, "of these, answered otherwise than they should be", "requests", float(unexpected.total()), goal=0),
        *_rows(samples),
    ]


async def _watch(client: Client, session: aiohttp.ClientSession, samples: Samples, lasts_s: float) -> None:
    began_s, told = time.monotonic(), 0
    while (now_s := time.monotonic() - began_s) < lasts_s:
        pods = [*await client.list(PODS, SYSTEM), *await client.list(PODS, HOME)]
        looked = (
            _look(session, name, pod["metadata"]["name"], f"http://{ip}:{PORTS[name]}/metrics", now_s, samples)
            for pod in pods
            if (name := (pod["metadata"].get("labels") or {}).get("app.kubernetes.io/name")) in PORTS
            and (ip := pod["status"].get("podIP"))
        )
        await asyncio.gather(*looked)
        if now_s // 60 >= told:
            told += 1
            say(f"minute {told} of {lasts_s / 60:.0f}, {len(samples)} processes")
        await asyncio.sleep(EVERY_S)


async def _look(session: aiohttp.ClientSession, name: str, pod: str, url: str, now_s: float, samples: Samples) -> None:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
            page = await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        say(f"{pod} says nothing of itself: {type(error).__name__}: {error}")
        return
    for prefix, (memory, handles) in read(page).items():
        kind = f"{name}, {prefix.removeprefix('foretide_')}" if prefix else name
        samples.setdefault((kind, pod), []).append(Sample(now_s, memory, handles))


def _rows(samples: Samples) -> Iterable[Row]:
    """Of each kind of process the one that grew most."""
    for kind in sorted({kind for kind, _ in samples}):
        levels = [found for (other, _), seen in samples.items() if other == kind and (found := level(seen))]
        where = kind.removeprefix("foretide-")
        yield Row(where, "processes", "processes", float(len(levels)))
        if not levels:
            continue
        most = max(levels, key=lambda one: one.memory_growth)
        yield Row(where, "memory, second quarter", "MB", round(most.memory_before_bytes / 1e6, 1))
        yield Row(where, "memory, last quarter", "MB", round(most.memory_after_bytes / 1e6, 1))
        yield Row(where, "memory, growth", "%", round(100 * most.memory_growth, 2), goal=MOST_GROWTH_PERCENT)
        more = max(one.handles_growth for one in levels)
        yield Row(where, "file handles, growth", "handles", more, goal=MOST_HANDLES)


_WORDS: Final = Words(
    title="Soak: memory and file handles under mixed load",
    command="make bench-soak",
    about=(
        "The real operator, gateways, node agents and workers on the local cluster of two nodes; two services of two"
        " workers each, with a Llama of 80,000 weights whose steps take 20 ms more than they must. Each is asked five"
        " times a second and streams one answer of 100 tokens after the other, compared with its undisturbed twin."
        " Beside them clients hang up amid streams, send bodies that are no JSON, keys and models that do not exist,"
        " prompts beyond the context, and ask for several choices with log probabilities.",
    ),
    notes=(
        "Growth is the median of the last quarter of the run over that of the second: the first is the warm-up. Of each"
        " kind of process, the one that grew most is shown. What a page says is the kernel's own count of the process.",
    ),
)


if __name__ == "__main__":
    sys.exit(main())
