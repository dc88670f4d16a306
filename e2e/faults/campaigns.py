"""The campaigns as lists of cases, and their controls: which mistake each must find, and with which case.

A case is a name and what is to be done; nothing here judges (`telling`, `stale`, `mutations`) or injects.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from e2e.faults import missed, mutations, quiet, refusals, stale
from e2e.faults.crash import Crash, Site
from e2e.faults.ground import Ground
from e2e.faults.outcomes import Outcome
from e2e.faults.proxy import Fault
from e2e.faults.refusals import Refusal
from e2e.faults.telling import WORLD, Reference, clean, told

WITHIN_S: Final = 120.0
"""To come to a state, on a machine that has much else to do."""
FOUND_S: Final = 25.0
"""After which a planted mistake that keeps the state away counts as found."""
SLOW: Final = frozenset({Refusal.SILENT_AFTER})
"""Half a minute each: only a few of them."""

STALE: Final = "stale read"
"""Its cases leave a world with a past behind them, for the next one."""

Run = Callable[[float], Awaitable[tuple[list[str], bool, dict[str, float]]]]
"""Within so many seconds: what was wrong, whether the fault came about, and what was counted."""


@dataclass(frozen=True)
class Case:
    """One case of a campaign."""

    campaign: str
    name: str
    run: Run
    plant: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.campaign, self.name, self.plant


async def done(ground: Ground, case: Case) -> Outcome:
    """The case, by an operator of the kind that it asks for."""
    if case.campaign != STALE and ground.truth.left(WORLD):
        await clean(ground, WORLD)
    if (ground.lives.plant, dict(ground.lives.settings)) != (case.plant, case.settings) or not ground.lives.runs:
        ground.lives.plant, ground.lives.settings = case.plant, case.settings
        await ground.lives.again()
    began_s = time.monotonic()
    wrong, met, numbers = await case.run(FOUND_S if case.plant else WITHIN_S)
    took_s, at = time.monotonic() - began_s, datetime.now(UTC).isoformat(timespec="seconds")
    return Outcome(case.campaign, case.name, case.plant, met, tuple(wrong), round(took_s, 2), at, numbers)


# --- those that disturb the story ------------------------------------------------------------------------------------
def _telling(ground: Ground, reference: Reference, fault: Fault) -> Run:
    async def run(within_s: float) -> tuple[list[str], bool, dict[str, float]]:
        found = await told(ground, reference, fault, within_s)
        counted = {"lives": found.restarts, "updates too many": found.extra_updates, "writes": found.writes}
        wrong = found.wrong + (fault.wrong() if isinstance(fault, refusals.ForAWhile) else [])
        return wrong, found.met, {name: float(number) for name, number in counted.items()}

    return run


ALONE: Final = "without a fault"


def alone(ground: Ground, reference: Reference, campaign: str, plant: str) -> Case:
    """A planted mistake that shows in an undisturbed run would prove nothing about the faults."""

    async def run(within_s: float) -> tuple[list[str], bool, dict[str, float]]:
        found = await told(ground, reference, Fault(), WITHIN_S)
        return found.wrong, True, {}

    return Case(campaign, ALONE, run, plant)


def crashes(ground: Ground, reference: Reference, sites: Sequence[Site], plant: str = "") -> Iterator[Case]:
    """Before each write, and after its commit; and once more so, with the next stage told before it is begun again."""
    for site in sites:
        for when, after, kill in (
            ("before", False, ground.lives.kill_and_begin),
            ("after commit", True, ground.lives.kill_and_begin),
            ("after commit and away", True, ground.lives.kill),
        ):
            fault = Crash(site, kill, after_commit=after)
            yield Case("crash", f"{when}, {site}", _telling(ground, reference, fault), plant)


def write_faults(ground: Ground, reference: Reference, sites: Sequence[Site], plant: str = "") -> Iterator[Case]:
    """Each refusal once at each write."""
    for site in sites:
        for kind in Refusal:
            if kind not in SLOW:
                run = _telling(ground, reference, refusals.Once(site, kind))
                yield Case("write faults", f"{kind.value}, {site}", run, plant)


def lasting_faults(ground: Ground, reference: Reference, sites: Sequence[Site], plant: str = "") -> Iterator[Case]:
    """One of each verb and resource, for eight seconds; and the slow ones."""
    for site in sites:
        for kind in (Refusal.CONFLICT, Refusal.THROTTLED, Refusal.BROKEN, Refusal.RESET):
            run = _telling(ground, reference, refusals.ForAWhile(site, kind))
            yield Case("write faults", f"{kind.value} for 8 s, {site}", run, plant)
        run = _telling(ground, reference, refusals.Once(site, Refusal.SILENT_AFTER))
        yield Case("write faults", f"{Refusal.SILENT_AFTER.value}, {site}", run, plant)


RELIST_S: Final = 10.0
OFTEN: Final = {"relist_period_s": RELIST_S}


def missed_events(
    ground: Ground, reference: Reference, events: Sequence[missed.Seen], losses: Sequence[missed.Loss], plant: str = ""
) -> Iterator[Case]:
    """Each event lost in each way; caches are compared every ten seconds instead of every fifteen minutes."""
    for event in events:
        for loss in losses:
            run = _telling(ground, reference, missed.Missing(event, loss))
            yield Case("missed event", f"{loss.value}, {event}", run, plant, OFTEN)


# --- the others ------------------------------------------------------------------------------------------------------
class Travels:
    """Histories grow old: the API server forgets versions after some minutes, so one is lived anew when it must be."""

    LASTS_S: Final = 150.0

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._past: stale.Past | None = None
        self._lived_s = 0.0

    def cases(self, number: int, plant: str = "") -> Iterator[Case]:
        """At `number` moments, spread over the history."""
        for at in range(number):
            yield Case(STALE, f"moment {at + 1} of {number}", self._run((at + 0.5) / number), plant)

    def _run(self, share: float) -> Run:
        async def run(within_s: float) -> tuple[list[str], bool, dict[str, float]]:
            past = self._past
            if past is None or time.monotonic() - self._lived_s > self.LASTS_S or not self._stands(past):
                self._lived_s = time.monotonic()
                self._past = past = await stale.lived(self._ground)
            moment = past.moments[int(share * len(past.moments))]
            wrong, numbers = await stale.travelled(self._ground, past, moment, within_s)
            if wrong:
                self._past = None
            return wrong, True, numbers

        return run

    def _stands(self, past: stale.Past) -> bool:
        """Cases of other campaigns in between take the world away."""
        return self._ground.truth.state(WORLD) == past.state


def quiets(ground: Ground, lasts_s: float, plant: str = "") -> Iterator[Case]:
    """Nothing is written while nothing changes, also not by an operator that has just begun."""

    async def run(within_s: float) -> tuple[list[str], bool, dict[str, float]]:
        return await quiet.kept(ground, lasts_s, within_s)

    yield Case("quiet", f"for {lasts_s:.0f} s", run, plant)


def mutated(ground: Ground, batches: Sequence[mutations.Batch], plant: str = "") -> Iterator[Case]:
    """Some mutations side by side, there and back."""
    for batch in batches:

        async def run(within_s: float, batch: mutations.Batch = batch) -> tuple[list[str], bool, dict[str, float]]:
            return await mutations.tried(ground, batch, within_s)

        yield Case("field mutation", batch.name, run, plant)
