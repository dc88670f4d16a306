"""`python -m benchmarks.routing`: measures, and writes docs/benchmarks/routing.{json,md}."""

from __future__ import annotations

import asyncio

from benchmarks.report import Better, Report, Row, Words, publish
from benchmarks.routing.fleet import Fleet, arrivals, simulate
from benchmarks.routing.picks import pick_us
from gateway.routing.terms import Policy

COUNT, SEEDS = 8_000, (1, 2, 3)
FLEETS = (
    Fleet("equal workers, few common beginnings", (1.0,) * 8, prefixes=4000, rate=0.8),
    Fleet("two of eight workers at half speed", (1.0,) * 6 + (0.5,) * 2, prefixes=4000, rate=0.8),
    Fleet("80 common beginnings, 12 fit into a worker", (1.0,) * 8, prefixes=80, rate=0.8),
)
PEER = Policy.ROUND_ROBIN
WORDS = Words(
    "Routing",
    "make bench-routing",
    [
        "What a pick costs, through the gateway's live objects, and what each policy does on a simulated fleet of "
        "eight workers of 16 slots. The simulation chooses with the gateway's own modules, which see what a "
        "gateway sees: their own requests at once, the rest by reports up to 250 ms old. Times to first token "
        "follow from a simple model of a worker, so only the comparison means something. The peer is `roundRobin` "
        "on the same arrivals."
    ],
    [
        "A pick is counted with the request's coming and going, and with new prices every 100 picks.",
        "Where one gateway sees all requests, as here, `adaptive` and `leastConnections` are equals; that "
        "`adaptive` also sees what other gateways send is not simulated. Neither knows caches: that is what "
        "`prefix` is for, and where prompts have nothing in common it costs latency, which is why it is not the "
        "default.",
        "`session` does as `prefix` does, since each beginning is a session here.",
    ],
)


def rows() -> list[Row]:
    found = []
    for endpoints, goal in ((8, 6.0), (64, 10.0)):
        for policy in Policy:
            found.append(
                Row(f"one pick among {endpoints}", policy.value, "µs CPU", pick_us(policy, endpoints), goal=goal)
            )
    for fleet in FLEETS:
        found += _compared(fleet)
    return found


def _compared(fleet: Fleet) -> list[Row]:
    outcomes = {policy: [simulate(fleet, policy, arrivals(fleet, COUNT, seed)) for seed in SEEDS] for policy in Policy}

    def mean(policy: Policy, field: str) -> float:
        return sum(float(getattr(one, field)) for one in outcomes[policy]) / len(SEEDS)

    made = []
    for policy in Policy:
        for field, metric, unit, better in (
            ("p50_s", "TTFT p50", "s", Better.LOWER),
            ("p99_s", "TTFT p99", "s", Better.LOWER),
            ("hits", "beginnings cached", "share", Better.HIGHER),
        ):
            ours, peer = mean(policy, field), mean(PEER, field)
            made.append(Row(fleet.name, f"{policy.value}: {metric}", unit, ours, peer, PEER.value, better=better))
    return made


async def main() -> None:
    for path in publish(Report.of_now(rows()), WORDS, "routing"):
        print(path)


if __name__ == "__main__":
    asyncio.run(main())
