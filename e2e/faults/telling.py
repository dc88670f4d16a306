"""Tells the story with and without a fault, and says what was different. The judge of most campaigns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from e2e.faults.crash import Site, sites
from e2e.faults.ground import Ground
from e2e.faults.lives import Ended
from e2e.faults.proxy import Fault
from e2e.faults.story import STAGES, Story, all_of, reached, settled, until
from e2e.faults.truth import State, differences, without_history
from kube.errors import NotFound
from kube.resources import Object, resource_of

WORLD = "world"
LINGER_S = 2.0
"""A write that comes after the state is reached is waited for so long."""


class Doubtful(Exception):
    """Two undisturbed runs differ: nothing can be judged by them."""


@dataclass
class Reference:
    """What an undisturbed run gives, by stage."""

    states: dict[str, State] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)
    updates: dict[str, Counter[str]] = field(default_factory=dict)


@dataclass
class Told:
    """What a disturbed run gave."""

    wrong: list[str]
    met: bool
    restarts: int
    extra_updates: int
    """Of Deployments, beyond those of the undisturbed run."""
    writes: int


async def undisturbed(ground: Ground, listening: Fault, *, twice: bool) -> Reference:
    """Raises Doubtful when a second run does not agree with the first, to which `listening` may listen."""
    with ground.fault(listening):
        first = await _recorded(ground)
    if twice:
        second = await _recorded(ground)
        for stage in STAGES:
            if told := differences(second.states[stage], first.states[stage]):
                raise Doubtful(f"Two undisturbed runs differ after '{stage}': {'; '.join(told)}")
        found = set(first.sites)
        first.sites += [one for one in second.sites if one not in found]
    return first


async def _recorded(ground: Ground) -> Reference:
    story, reference = Story(WORLD), Reference()
    for stage in STAGES:
        before = len(ground.proxy.writes)
        ground.proxy.fault.stage = stage
        await story.go(ground, stage)
        await settled(ground, WORLD)
        reference.states[stage] = ground.truth.state(WORLD)
        reference.updates[stage] = ground.truth.updates(WORLD)
        reference.sites += sites(stage, ground.proxy.writes[before:])
    return reference


async def told(ground: Ground, reference: Reference, fault: Fault, within_s: float) -> Told:
    """The story under a fault. It ends at the first stage that does not come to the state it should."""
    writes, starts = len(ground.proxy.writes), ground.lives.starts
    ended, log = len(ground.lives.ended), ground.lives.log_bytes()
    wrong: list[str] = []
    extra, was_away = 0, False
    with ground.fault(fault):
        for stage in STAGES:
            fault.stage = stage
            await Story(WORLD).go(ground, stage)
            if not ground.lives.runs:
                was_away = True
                await ground.lives.begin()
            look = without_history if was_away and stage != STAGES[-1] else all_of
            wrong = await _to(ground, reference.states[stage], fault, look, within_s)
            if wrong:
                break
            extra += 0 if was_away else _extra(ground.truth.updates(WORLD), reference.updates[stage])
        if not ground.lives.runs:
            await ground.lives.begin()
            wrong = await reached(ground, WORLD, reference.states[STAGES[-1]], within_s)
    wrong += troubles(ground, ended, log)
    if wrong:
        await clean(ground, WORLD)
    restarts, wrote = ground.lives.starts - starts, len(ground.proxy.writes) - writes
    return Told(wrong, fault.met, restarts, extra, wrote)


async def _to(
    ground: Ground, wanted: State, fault: Fault, look: Callable[[State], State], within_s: float
) -> list[str]:
    """Nothing is judged once the operator is away: people go on meanwhile."""

    async def judged() -> list[str]:
        return await reached(ground, WORLD, wanted, within_s, look, lambda: not ground.lives.runs)

    wrong = await judged()
    if not wrong and fault.awaited == fault.stage and await until(lambda: fault.met, LINGER_S):
        wrong = await judged()
    return [f"{fault.stage}: {one}" for one in wrong] if ground.lives.runs else []


def _extra(found: Counter[str], wanted: Counter[str]) -> int:
    return sum(max(0, number - wanted[name]) for name, number in found.items())


def troubles(ground: Ground, ended: int, log: int) -> list[str]:
    """Lives that ended by themselves, and errors in the log, since then."""
    crashed: list[Ended] = [one for one in ground.lives.ended[ended:] if not one.for_want_of_time]
    said = [f"the operator ended by itself with {one.code}: {one.last_line[:200]}" for one in crashed]
    return said + [f"the log says: {one}" for one in ground.lives.complaints(log)]


async def clean(ground: Ground, world: str) -> None:
    """After something went wrong: an operator without a planted mistake, and then nothing that is left."""
    await Story(world).go(ground, "ended")
    if await until(lambda: not ground.truth.left(world), 5.0):
        return
    for _ in range(20):
        for obj in ground.truth.left(world):
            await _force(ground, obj)
        if await until(lambda: not ground.truth.left(world), 1.0):
            return
    raise Doubtful(f"Namespace '{world}' cannot be emptied: {len(ground.truth.left(world))} objects are left.")


async def _force(ground: Ground, obj: Object) -> None:
    resource, meta = resource_of(obj), obj["metadata"]
    try:
        await ground.client.merge_patch(
            resource, meta.get("namespace"), meta["name"], {"metadata": {"finalizers": None}}
        )
        await ground.client.delete(resource, meta.get("namespace"), meta["name"], grace_period_s=0)
    except NotFound:
        return
