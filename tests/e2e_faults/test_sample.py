"""A sample of the campaigns, small enough for every change: real process, real API server, one case of several kinds.

`make bench-operator-faults` goes through all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from e2e.faults import campaigns
from e2e.faults.campaigns import Case, done
from e2e.faults.crash import Site
from e2e.faults.ground import Ground, ground
from e2e.faults.proxy import Fault
from e2e.faults.refusals import Refusal
from e2e.faults.telling import Reference, undisturbed

pytestmark = [pytest.mark.apiserver, pytest.mark.asyncio(loop_scope="module")]


@dataclass
class World:
    """An operator that runs, and what it does undisturbed."""

    ground: Ground
    reference: Reference

    def site(self, verb: str, resource: str, name: str) -> Site:
        """The first write of that kind."""
        return next(one for one in self.reference.sites if (one.verb, one.resource, one.name) == (verb, resource, name))

    async def wrong(self, case: Case) -> list[str]:
        """What the case found, whose fault must have come about."""
        outcome = await done(self.ground, case)
        assert outcome.met, f"{case.name} did not come about"
        return list(outcome.wrong)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    async with ground() as standing:
        await standing.lives.begin()
        yield World(standing, await undisturbed(standing, Fault(), twice=False))


async def test_killed_at_a_write_it_comes_to_the_same_states_and_leaves_nothing(world: World) -> None:
    sites = [
        world.site("apply", "persistentvolumeclaims", "m-model"),
        world.site("delete", "configmaps", "foretide-alerts-alerts"),
    ]
    for case in campaigns.crashes(world.ground, world.reference, sites):
        assert await world.wrong(case) == []


async def test_a_write_that_is_refused_or_whose_answer_is_lost_stands_in_the_end(world: World) -> None:
    site = world.site("apply", "services", "chat-worker")
    wanted = (Refusal.BROKEN.value, Refusal.RESET_AFTER.value)
    for case in campaigns.write_faults(world.ground, world.reference, [site]):
        if case.name.split(",")[0] in wanted:
            assert await world.wrong(case) == []


async def test_a_crash_between_two_writes_of_an_operator_that_forgets_is_found(world: World) -> None:
    site = world.site("apply", "networkpolicies.networking.k8s.io", "chat-worker")
    case = next(campaigns.crashes(world.ground, world.reference, [site], "remembers in the status"))
    assert any("PodDisruptionBudget chat-worker is missing" in one for one in await world.wrong(case))


async def test_nothing_is_written_while_nothing_changes_and_not_after_a_restart(world: World) -> None:
    (case,) = campaigns.quiets(world.ground, lasts_s=6.0)
    assert await world.wrong(case) == []
