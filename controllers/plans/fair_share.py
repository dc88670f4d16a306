"""Fair share over time: what Tenants of a cohort borrowed lately, and how that weighs when they want more. Pure.

Only what is borrowed counts: what fits into a Tenant's own quota is its own, however much it uses it. What was
borrowed is an average that forgets with the cohort's half-life, published in the status of each Tenant once a
`period_s`; between two publications nothing that is decided from it changes, so workers do not move to and fro.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from controllers.plans.tenancy import Tenant
from controllers.plans.times import rfc3339
from crds.fields import seconds

PERIODS: Final = 16
"""Of one half-life: how often averages are published, between 5 s and an hour."""
MOST: Final = 2.0
"""What was borrowed doubles or halves a weight at most: nobody starves for what it took, nor saves up for ever."""
_NOTHING: Final = 0.0005
"""Averages are published in thousandths."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one Tenant borrowed on average, by line of the quota, as of a Unix time."""

    at_s: float
    average: Mapping[str, float] = field(default_factory=dict)

    def after(self, borrowed: Mapping[str, int], now_s: float, half_life_s: float) -> Usage:
        """It had `borrowed` from then until now. Exact, however many steps it is asked in."""
        kept = 0.5 ** (max(0.0, now_s - self.at_s) / half_life_s)  # A clock may be set back.
        lines = {*self.average, *borrowed}
        average = {line: self.average.get(line, 0.0) * kept + borrowed.get(line, 0) * (1 - kept) for line in lines}
        return Usage(now_s, {line: amount for line, amount in average.items() if amount >= _NOTHING})


def half_life_s(tenant: Tenant, tenants: Iterable[Tenant]) -> float | None:
    """Of its cohort: the longest that any of its Tenants names. None where none does: only what is now counts."""
    if tenant.spec.borrowing is None:
        return None
    cohort = [one.spec.borrowing for one in tenants if one.spec.borrowing is not None]
    named = [one.half_life for one in cohort if one.cohort == tenant.spec.borrowing.cohort and one.half_life]
    return max((seconds(one) for one in named), default=None)


def period_s(half_life: float) -> float:
    """Between two publications."""
    return min(3600.0, max(5.0, half_life / PERIODS))


def is_due(published_s: float, now_s: float, half_life: float) -> bool:
    """Whether it is another period: all Tenants publish at the same times, so that they are compared at one.

    A later one was told by a clock that was ahead.
    """
    period = period_s(half_life)
    return now_s // period != published_s // period


def until_due(now_s: float, half_life: float) -> float:
    """Seconds to the next publication."""
    period = period_s(half_life)
    return period - now_s % period


@dataclass(frozen=True, slots=True)
class Standing:
    """One of those who want to borrow, beside the others."""

    used: float
    due: float
    """Of what all of them borrowed, the part that its weight gives it."""
    factor: float
    """By how much its weight counts more or less now: due ÷ used, between ½ and 2."""


def standings(used: Mapping[str, float], weights: Mapping[str, int], workers: Mapping[str, int]) -> dict[str, Standing]:
    """By name. What is within one worker of its due is no debt: `workers` are their sizes."""
    total, whole = sum(used.values()), sum(weights.values())
    return {name: _standing(used[name], total * weight / whole, workers[name]) for name, weight in weights.items()}


def _standing(used: float, due: float, worker: int) -> Standing:
    if abs(used - due) <= worker:
        return Standing(used, due, 1.0)
    return Standing(used, due, min(MOST, max(1 / MOST, due / used)) if used else MOST)


def turn_of(tenant: Tenant | None, lines: Iterable[str]) -> float:
    """Who has the lowest is served first of what there is too little of: what it borrowed for its weight, in the first
    of `lines` that its quota has."""
    if tenant is None:
        return 0.0
    return next((tenant.borrowed[line] / tenant.spec.weight for line in lines if line in tenant.borrowed), 0.0)


def published(
    tenant: Tenant, usage: Usage, lines: Iterable[str], half_life: float, everyone: Iterable[Tenant]
) -> dict[str, Any]:
    """`status.fairShare`: the average in the lines of its quota, and how it stands beside its cohort's others.

    At least one line, and zeros, too: of an object whose last field is taken away the API server makes a null, which
    its own schema refuses.
    """
    borrowing = tenant.spec.borrowing
    assert borrowing is not None, "only a cohort has a half-life"
    mine = {line: usage.average.get(line, 0.0) for line in sorted(lines)}
    others = [
        one
        for one in everyone
        if one.uid != tenant.uid and one.spec.borrowing and one.spec.borrowing.cohort == borrowing.cohort
    ]
    return {
        "cohort": borrowing.cohort,
        "halfLife": _duration(half_life),
        "sampledAt": rfc3339(usage.at_s),
        "average": {line: f"{amount:.3f}" for line, amount in mine.items()},
        "standing": ", ".join(_part(line, amount, tenant, others) for line, amount in mine.items() if amount),
    }


def _part(line: str, amount: float, tenant: Tenant, others: Sequence[Tenant]) -> str:
    """`gpus 71%/50%`."""
    borrowers = [one for one in others if one.borrowed.get(line)]
    total = amount + sum(one.borrowed[line] for one in borrowers)
    weights = tenant.spec.weight + sum(one.spec.weight for one in borrowers)
    return f"{line} {amount / total:.0%}/{tenant.spec.weight / weights:.0%}"


def _duration(length_s: float) -> str:
    """As a half-life is written, in no more digits than one may have: `90m`, `24h`, `500d`."""
    minutes = round(length_s / 60)
    if minutes % 60:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h" if hours < 10_000 else f"{hours // 24}d"
