"""A small part of `benchmarks.failover`: real worker servers behind a real gateway, killed and hung amid streams."""

from __future__ import annotations

from pathlib import Path

from benchmarks.failover.campaign import Plan, run, twins
from benchmarks.failover.fleet import gateway, workers


async def test_kills_and_hangs_amid_streams_lose_repeat_and_change_no_token(tmp_path: Path) -> None:
    async with workers(6) as fleet:
        expected = await twins(f"http://127.0.0.1:{fleet.ports[0]}")
        async with gateway(fleet.ports, tmp_path) as ours:
            plan = Plan(seed=1, kills=20, hangs=4, clients=8, kill_every_s=0.3)
            outcome = await run(plan, ours.url, fleet, expected)
    assert (outcome.kills, outcome.stops, outcome.stuck) == (20, 2, 2)
    assert (outcome.broken, outcome.changed, outcome.refused) == (0, 0, 0)
    assert outcome.whole > 20
    assert len(ours.moved) >= 20
