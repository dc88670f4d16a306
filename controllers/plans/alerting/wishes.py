"""What alerts may ask of a service: that its rollout waits, that more workers stand by, that it says what is wrong.

Values only. Whether and how far a wish is granted is decided with the service's own limits, in the plan of the service.
"""

from __future__ import annotations

from dataclasses import dataclass

Place = tuple[str, str]
"""Namespace and name of an InferenceService, or of a policy."""


@dataclass(frozen=True, slots=True)
class Floor:
    """At least so many workers, until a time. `why` is a sentence without a full stop."""

    workers: int
    until_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Its rollout waits, until a time. `why` is a sentence without a full stop."""

    until_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is wrong with it, since this alert began to fire?"""

    alert: str
    since_s: float
    policy: str
    """`namespace/name`."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """Of all alerts about one service."""

    holds: tuple[Hold, ...] = ()
    floors: tuple[Floor, ...] = ()
    question: Question | None = None
    """Of the alert that began last."""

    def and_those(self, other: Wishes) -> Wishes:
        """All holds, all floors, the newest question."""
        asked = [one for one in (self.question, other.question) if one is not None]
        return Wishes(
            self.holds + other.holds,
            self.floors + other.floors,
            max(asked, key=lambda one: one.since_s, default=None),
        )


NOTHING = Wishes()


def hold_now(wishes: Wishes, now_s: float) -> Hold | None:
    """The first whose time is not up: nobody needs to look at the alert again for it to end."""
    return next((one for one in wishes.holds if now_s < one.until_s), None)


def floor_now(wishes: Wishes, now_s: float) -> Floor | None:
    """The highest of those whose time is not up; of two that are alike the one that lasts longer."""
    standing = [one for one in wishes.floors if now_s < one.until_s]
    return max(standing, key=lambda one: (one.workers, one.until_s), default=None)
