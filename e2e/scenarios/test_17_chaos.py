"""A seeded sample of the chaos campaign: a worker killed, hung and cut off, an edit refused, an operator killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from e2e.chaos.ground import GPU_SERVICE, prepared
from e2e.chaos.outcomes import line, read
from e2e.chaos.schedule import campaign
from e2e.chaos.stage import started
from e2e.cluster.cluster import Cluster
from e2e.scenarios.world import World
from e2e.target import Target

Measured = Callable[[str, str], None]

LANES: Final = ("anna", "bela")
SAMPLE: Final = {
    "process kill": 1,
    "hang of the worker": 1,
    "network cut": 1,
    "corrupted model file": 1,
    "operator kill": 1,
}


def test_a_sample_of_faults_heals_and_loses_nothing(
    target: Target, own_cluster: Cluster | None, world: World, tmp_path: Path, measured: Measured
) -> None:
    if own_cluster is None:
        pytest.skip("the nodes of this cluster are not ours to break")
    faults = campaign(7, LANES, GPU_SERVICE, SAMPLE)
    out = tmp_path / "campaign.jsonl"
    with prepared(target, tmp_path, gpu_nodes=False) as ground:

        async def sample() -> None:
            async with started(ground, LANES, out, print) as it:
                await it.run(faults)

        asyncio.run(sample())
    outcomes, _ = read(out)
    for outcome in outcomes.values():
        measured(f"chaos: {outcome.kind}", line(outcome)[4:])
    assert set(outcomes) == {fault.number for fault in faults}
    assert all(outcome.healed for outcome in outcomes.values())
    assert sum(outcome.took.lost for outcome in outcomes.values()) == 0
