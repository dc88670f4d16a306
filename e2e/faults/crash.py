"""Faults at one write of the story: the operator is killed before the server has it, or after its commit.

Sites are told apart by what is written, not by when, so that two runs mean the same write.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from e2e.faults.proxy import CUT, Answer, Call, Fault, Forward, Met

_POD: Final = re.compile(r"-[a-z0-9]{9,10}-[a-z0-9]{5}$")


@dataclass(frozen=True, order=True)
class Site:
    """One write of the story."""

    stage: str
    verb: str
    resource: str
    name: str
    nth: int
    """How many writes like it came before in this stage."""

    def __str__(self) -> str:
        return f"{self.stage}: {self.verb} {self.resource} {self.name} #{self.nth + 1}"


Place = tuple[str, str, str]


def place(call: Call) -> Place:
    """Verb, resource with subresource, and the name without what chance decides."""
    part = f"/{call.subresource}" if call.subresource else ""
    name = call.written_name or ""
    return call.verb, call.resource + part, _POD.sub("-POD", name) if call.resource == "pods" else name


def sites(stage: str, writes: Iterable[Met]) -> list[Site]:
    """All writes of a stage of an undisturbed run."""
    seen: Counter[Place] = Counter()
    found = []
    for one in writes:
        where = place(one.call)
        found.append(Site(stage, *where, seen[where]))
        seen[where] += 1
    return found


class AtSite(Fault, ABC):
    """Does something at one write of the story, once."""

    def __init__(self, site: Site) -> None:
        self.site, self.awaited = site, site.stage
        self._seen: Counter[Place] = Counter()

    async def meet(self, call: Call, forward: Forward) -> Answer:
        if not self._is_it(call):
            return await forward(call)
        self.met = True
        return await self.strike(call, forward)

    @abstractmethod
    async def strike(self, call: Call, forward: Forward) -> Answer:
        """The write that it is about."""

    def _is_it(self, call: Call) -> bool:
        if self.met or not call.is_write or self.stage != self.site.stage:
            return False
        where = place(call)
        nth = self._seen[where]
        self._seen[where] += 1
        return (*where, nth) == (self.site.verb, self.site.resource, self.site.name, self.site.nth)


class Crash(AtSite):
    """`kill` ends the operator and has it begun again."""

    def __init__(self, site: Site, kill: Callable[[], None], *, after_commit: bool) -> None:
        super().__init__(site)
        self._kill, self._after_commit = kill, after_commit

    async def strike(self, call: Call, forward: Forward) -> Answer:
        if self._after_commit:
            await forward(call)
        self._kill()
        return CUT


def sample(every: Sequence[Site]) -> list[Site]:
    """The first write of each verb and resource, those that come least often first."""
    counts = Counter((one.verb, one.resource) for one in every)
    first: dict[tuple[str, str], Site] = {}
    for one in every:
        first.setdefault((one.verb, one.resource), one)
    return sorted(first.values(), key=lambda one: (counts[one.verb, one.resource], one))
