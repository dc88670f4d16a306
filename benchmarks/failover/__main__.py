"""`python -m benchmarks.failover [--rounds 10] [--out FOLDER]`: goes on where it stopped, and writes the page."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from benchmarks.failover.campaign import Plan, run, twins
from benchmarks.failover.chunks import chunk_costs
from benchmarks.failover.fleet import gateway, nginx, workers
from benchmarks.report import Better, Report, Row, Words, commit, publish

N_WORKERS = 8
KILLS, HANGS = 100, 20
"""Of one round."""
PEER = Plan(seed=77, kills=20, hangs=4)


async def one_round(number: int, out: Path) -> dict[str, Any]:
    async with workers(N_WORKERS) as fleet:
        expected = await twins(f"http://127.0.0.1:{fleet.ports[0]}")
        async with gateway(fleet.ports, out) as ours:
            outcome = await run(Plan(number, KILLS, HANGS), ours.url, fleet, expected)
    return asdict(outcome) | {"moves": [moves for moves, _ in ours.moved], "gaps_s": [gap_s for _, gap_s in ours.moved]}


async def peer_round(out: Path) -> dict[str, Any] | None:
    async with workers(N_WORKERS) as fleet, nginx(fleet.ports, out) as url:
        if url is None:
            return None
        return asdict(await run(PEER, url, fleet, await twins(url)))


def measure(rounds: int, out: Path) -> None:
    done = {one["round"] for one in results(out)}
    for number in range(rounds):
        if number not in done:
            _keep(out, {"round": number} | asyncio.run(one_round(number, out)))
    if not (out / "peer.json").exists() and (peer := asyncio.run(peer_round(out))) is not None:
        (out / "peer.json").write_bytes(orjson.dumps(peer))
    if not (out / "chunks.json").exists():
        (out / "chunks.json").write_bytes(orjson.dumps(asyncio.run(chunk_costs(out))))


def _keep(out: Path, result: dict[str, Any]) -> None:
    with (out / "rounds.jsonl").open("ab") as file:
        file.write(orjson.dumps(result, option=orjson.OPT_APPEND_NEWLINE))
    shown = {name: value for name, value in result.items() if not isinstance(value, list)}
    print(shown, "longest gap", max(result["gaps_s"], default=None), file=sys.stderr, flush=True)


def results(out: Path) -> list[dict[str, Any]]:
    path = out / "rounds.jsonl"
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def rows(ours: list[dict[str, Any]], peer: dict[str, Any] | None, chunks: dict[str, float] | None) -> list[Row]:
    def total(name: str) -> float:
        return float(sum(one[name] for one in ours))

    gaps = sorted(gap_s for one in ours for gap_s in one["gaps_s"])
    n_streams = total("whole") + total("broken") + total("changed")
    made = [
        Row("what was done", "workers killed in the middle of streams", "workers", total("kills"), goal=1000,
            better=Better.HIGHER),
        Row("what was done", "workers hung: stopped", "workers", total("stops"), goal=100, better=Better.HIGHER),
        Row("what was done", "workers hung: the engine makes no step", "workers", total("stuck"), goal=100,
            better=Better.HIGHER),
        Row("what was done", "streams", "streams", n_streams),
        Row("what was done", "streams that were moved", "streams", float(sum(len(one["gaps_s"]) for one in ours))),
        Row("what clients lost", "streams with a token lost, repeated, changed or of another", "streams",
            total("changed"), goal=0),
        Row("what clients lost", "streams that broke", "streams", total("broken"), goal=0),
        Row("what clients lost", "requests that never began", "requests", total("refused"), goal=0),
    ]  # fmt: skip
    for name, share, goal in (("p50", 0.5, None), ("p99", 0.99, 1.0), ("longest", 1.0, 1.0)):
        gap_s = gaps[min(int(len(gaps) * share), len(gaps) - 1)] if gaps else None
        made.append(Row("the gap in a moved stream", name, "s", gap_s, goal=goal))
    if peer is not None:
        n_peer = peer["whole"] + peer["broken"] + peer["changed"]
        ours_share = 1000 * (total("broken") + total("changed")) / (total("kills") + total("stops") + total("stuck"))
        peer_share = 1000 * (n_peer - peer["whole"]) / (peer["kills"] + peer["stops"] + peer["stuck"])
        made.append(
            Row(
                "beside a proxy",
                "streams lost for each 1,000 kills and hangs",
                "streams",
                ours_share,
                peer_share,
                "nginx",
            )
        )
    if chunks is not None:
        made += [
            Row("CPU of the gateway per streamed chunk, 64 streams", "with the journal", "µs", chunks["with"], goal=35),
            Row("CPU of the gateway per streamed chunk, 64 streams", "without", "µs", chunks["without"]),
        ]
    return made


WORDS = Words(
    title="Workers killed and hung in the middle of streams",
    command="make bench-failover",
    about=(
        "A real gateway process before eight workers: the real server of a worker before an engine whose next token is"
        " a hash of the seed and of every token before it, so that a token lost, repeated or changed alters all that"
        " follow. Sixteen clients read streams (chat, completions, several choices and prompts, log probabilities,"
        " stop strings, usage) of up to 60 tokens, one in 20 ms. Meanwhile workers that hold streams are killed,"
        " stopped (SIGSTOP), or their engine is made to stand still; they come back under the same address. Each stream"
        " is compared with its undisturbed twin.",
    ),
    notes=(
        "A gap is what the client waits between the last word of one worker and the first of the next, by the gateway's"
        " access log. Clients, gateway, workers and whatever else the machine does share its CPUs.",
        "A run goes on where it stopped; the rounds of another commit are kept apart.",
        "A stopped worker is found when no token comes for 0.35 s and no answer to its load, asked four times a second,"
        " for 0.2 s; one whose engine stands still, by its own word after 0.4 s. Such an engine admits nothing either.",
        "nginx passes the same streams on, and retries what has not begun.",
        "The gateway of the last rows runs with keys, admission, routing and health; its access log is off.",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover")
    parser.add_argument("--rounds", type=int, default=10, help=f"of {KILLS} kills and {HANGS} hangs each")
    kept = Path("build/bench-failover") / commit()
    parser.add_argument("--out", type=Path, default=kept, help="folder of the rounds (default: one for each commit)")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    measure(arguments.rounds, out)
    peer, chunks = ((out / name) for name in ("peer.json", "chunks.json"))
    found = rows(
        results(out),
        orjson.loads(peer.read_bytes()) if peer.exists() else None,
        orjson.loads(chunks.read_bytes()) if chunks.exists() else None,
    )
    busy = (
        f"All of it ran at nice {os.nice(0)}, and the load average at the end was {os.getloadavg()[0]:.1f}. Gaps are"
        " longer by what gateway and workers wait for a CPU."
    )
    for path in publish(Report.of_now(found), replace(WORDS, notes=(*WORDS.notes, busy)), "failover"):
        print(path)


if __name__ == "__main__":
    main()
