"""How long a request would wait, and whether that is too long. Pure arithmetic over what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.admission.fair import Ask, FairQueue
from gateway.admission.terms import FIRST_TOKEN_S, Priority

WEIGHT_OF_NEWEST: Final = 0.05
ASSUMED_TOKENS_PER_S: Final = 200.0
"""Of each choice of an answer, until one has come to its end: faster than most, so that leaving early saves nothing."""


@dataclass(slots=True)
class Pace:
    """How long a request holds a slot, and how fast its answer is made, as averages that forget."""

    hold_s: float | None = None
    tokens_per_s: float | None = None
    """Of one answer, from asking its worker to its end."""

    def saw(self, hold_s: float) -> None:
        self.hold_s = _moved(self.hold_s, hold_s)

    def saw_whole(self, tokens: int, in_s: float) -> None:
        """An answer that came to its end."""
        self.tokens_per_s = _moved(self.tokens_per_s, tokens / in_s)

    def made(self, in_s: float, most_tokens: int, choices: int) -> int:
        """How much of an answer nobody waited for there is by then: while nothing is known, as of a fast worker."""
        tokens_per_s = ASSUMED_TOKENS_PER_S * choices if self.tokens_per_s is None else self.tokens_per_s
        return min(most_tokens, round(tokens_per_s * in_s))

    def wait_s(self, ahead: float, slots: int) -> float:
        """For one that has so many before it; 0 while nothing is known."""
        return (ahead + 1.0) * self.hold_s / slots if self.hold_s is not None and slots else 0.0


def _moved(average: float | None, newest: float) -> float:
    return newest if average is None else average + WEIGHT_OF_NEWEST * (newest - average)


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long a request of each class may wait."""

    priority: Priority | None
    """Of the service's SLA; None without one."""
    target_s: float | None
    """Within which its first token is due, if the SLA says."""
    most_s: float
    """Where nothing is promised."""

    def allowed_s(self, priority: Priority) -> float:
        """Longer than this, and its first token would come too late."""
        if self.priority is None or priority is Priority.P3:
            return self.most_s
        if priority is self.priority and self.target_s is not None:
            return self.target_s
        return FIRST_TOKEN_S[priority]


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: str
    message: str
    retry_after_s: int


def too_late(queue: FairQueue, pace: Pace, patience: Patience, slots: int, ask: Ask) -> Refusal | None:
    """One more would miss what its class is due, or its own deadline."""
    ahead = queue.ahead(ask.tenant, ask.weight, ask.priority)
    wait_s = pace.wait_s(ahead, slots)
    allowed_s = min(patience.allowed_s(ask.priority), ask.deadline_s - ask.came_s)
    if wait_s <= allowed_s:
        return None
    message = (
        f"would wait {wait_s:.1f} s, and {ask.priority.name} may wait {allowed_s:g} s: "
        f"{ahead:.0f} requests before it × {pace.hold_s or 0.0:.2f} s each ÷ {slots} at the same time"
    )
    return Refusal("PredictedMiss", message, max(1, min(60, round(wait_s - allowed_s))))


def surplus(queue: FairQueue, pace: Pace, patience: Patience, slots: int) -> list[Ask]:
    """Who must go so that the others meet what they are due: the newest of the lowest class, of the tenant with most.

    Discards them from the queue.
    """
    gone: list[Ask] = []
    for priority in reversed(Priority):
        before = sum(queue.waiting(one) for one in Priority if one < priority)
        while (ask := queue.newest(priority)) is not None:
            if pace.wait_s(before + queue.waiting(priority) - 1, slots) <= 2.0 * patience.allowed_s(priority):
                break
            queue.discard(ask)
            gone.append(ask)
    return gone


def expired(queue: FairQueue, patience: Patience, now_s: float) -> list[Ask]:
    """Who has waited for twice as long as its class may, or until its deadline. Discards them from the queue."""

    def is_late(ask: Ask) -> bool:
        return now_s >= ask.deadline_s or now_s - ask.came_s > max(1.0, 2.0 * patience.allowed_s(ask.priority))

    gone = [one for one in queue.all() if is_late(one)]
    for one in gone:
        queue.discard(one)
    return gone
