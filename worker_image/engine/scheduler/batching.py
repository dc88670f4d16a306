"""The door between those who wait and those who run: open always, or for batches.

*Continuous*: whoever is first joins the next step. *Adaptive*: groups join, the larger the emptier the engine is.
*Dynamic*: a batch of whoever is there, run to its end, nobody joins. *Static*: the same, but only full ones.
A batch that does not fill up goes when its first request has waited `max_wait_s`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from worker_image.engine.scheduler.packing import by_steps, of_one_bucket, that_fit
from worker_image.engine.scheduler.policy import Policy
from worker_image.engine.scheduler.settings import Batching, Packing, Scheduling
from worker_image.engine.sequence import Sequence

SEEN_AHEAD: Final = 64
"""Of those who wait, so many are looked at to pack a step."""


@dataclass(frozen=True, slots=True)
class Inside:
    """How full the engine is."""

    n_running: int
    n_rows: int
    step_tokens: int
    """That a step may compute."""
    block_tokens: int
    free_blocks: int
    n_blocks: int

    @property
    def fullness(self) -> float:
        """Of rows or of the cache, whichever is fuller, 0 to 1."""
        return max(self.n_running / self.n_rows, 1 - self.free_blocks / self.n_blocks)


def threshold(scheduling: Scheduling, fullness: float, most: int) -> int:
    """Requests that open the door in adaptive mode: base × (1 − fullness), within minimum and maximum."""
    return max(scheduling.min_batch, min(round(scheduling.batch_base * (1 - fullness)), most), 1)


def opens(scheduling: Scheduling, n_waiting: int, waited_s: float, inside: Inside) -> bool:
    """Whether a batch may begin; `waited_s` is of the oldest."""
    most = min(scheduling.max_batch or inside.n_rows, inside.n_rows)
    match scheduling.batching:
        case Batching.CONTINUOUS:
            return inside.n_running < most
        case Batching.ADAPTIVE:
            enough, free = threshold(scheduling, inside.fullness, most), inside.n_running < most
        case Batching.DYNAMIC:
            enough, free = scheduling.min_batch, inside.n_running == 0
        case Batching.STATIC:
            enough, free = most, inside.n_running == 0
    in_time = n_waiting >= enough and waited_s >= scheduling.min_wait_s
    return free and (in_time or waited_s >= scheduling.max_wait_s)


class Door:
    """Names the next to come in; those it has named come in before it looks again."""

    def __init__(self, scheduling: Scheduling) -> None:
        self._scheduling = scheduling
        self._joining = scheduling.batching in (Batching.CONTINUOUS, Batching.ADAPTIVE)
        self.always_open = scheduling == Scheduling(policy=scheduling.policy, ageing_s=scheduling.ageing_s)
        self._group: deque[Sequence] = deque()

    @property
    def lets_join(self) -> bool:
        """Whether somebody may come while others run, and so take another's place."""
        return self._joining

    def begin_step(self) -> None:
        if self._scheduling.batching is Batching.CONTINUOUS:
            self._group.clear()

    def next(self, policy: Policy, inside: Inside, now: float) -> Sequence | None:
        group = self._group
        while group and not _waits(group[0]):
            group.popleft()
        if not group:
            oldest = policy.oldest()
            if oldest is None or not opens(self._scheduling, len(policy), now - oldest.arrived_at, inside):
                return None
            policy.head(now)  # those that are too late now are put in their places
            group.extend(self._form(policy, inside, now))
        return group[0] if group else None

    def opens_in_s(self, policy: Policy, inside: Inside, now: float) -> float:
        """How long nobody may come in unless somebody else arrives or leaves."""
        oldest, scheduling = policy.oldest(), self._scheduling
        if oldest is None or self._group:
            return 0.0
        waited_s = now - oldest.arrived_at
        if opens(scheduling, len(policy), waited_s, inside):
            return 0.0
        until_min_s = scheduling.min_wait_s - waited_s
        return until_min_s if until_min_s > 0 else max(scheduling.max_wait_s - waited_s, 0.0)

    def _form(self, policy: Policy, inside: Inside, now: float) -> list[Sequence]:
        scheduling = self._scheduling
        most = min(scheduling.max_batch or inside.n_rows, inside.n_rows) - inside.n_running
        if scheduling.packing is Packing.ORDER:
            return policy.first(most)
        seen = policy.first(max(most, SEEN_AHEAD))
        if scheduling.packing is Packing.BUCKETS:
            return [seen[i] for i in of_one_bucket([len(s.tokens) for s in seen])][:most]
        return self._packed(seen, inside, now)[:most]

    def _packed(self, seen: list[Sequence], inside: Inside, now: float) -> list[Sequence]:
        """In whole steps; while the first has not waited too long, smaller ones may pass one that has no room."""
        if now - seen[0].arrived_at < self._scheduling.max_wait_s:
            needs = [-(-(len(s.tokens) + 1) // inside.block_tokens) for s in seen]
            seen = [seen[i] for i in that_fit(needs, inside.free_blocks - inside.n_running)]
        return [seen[i] for i in by_steps([len(s.tokens) for s in seen], inside.step_tokens)]


def _waits(sequence: Sequence) -> bool:
    return not sequence.ended and (sequence.row is None or sequence.leaving)
