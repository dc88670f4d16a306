"""What good scheduling is, as arithmetic: Σ(delay ÷ SLA)² + λ · variance, and the constraints beside it.

    delay ≤ 0.95 SLA,  utilisation ≥ 0.8,  Jain fairness ≥ 0.9

What the benchmark of policies reports. Pure functions of what has happened; nothing here decides.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from statistics import pvariance
from typing import Final

VARIANCE_WEIGHT: Final = 1.0
"""λ, by default."""
MOST_DELAY: Final = 0.95
LEAST_UTILISATION: Final = 0.8
LEAST_FAIRNESS: Final = 0.9


@dataclass(frozen=True, slots=True)
class Served:
    """One request: its delay and what its SLA allows, in seconds."""

    delay_s: float
    allowed_s: float

    @property
    def ratio(self) -> float:
        return self.delay_s / self.allowed_s


def cost(served: Many[Served], variance_weight: float = VARIANCE_WEIGHT) -> float:
    """Σ(delay ÷ SLA)² + λ · variance of delay ÷ SLA; 0 of nobody."""
    ratios = [each.ratio for each in served]
    return sum(ratio * ratio for ratio in ratios) + (variance_weight * pvariance(ratios) if ratios else 0.0)


def jain(shares: Many[float]) -> float:
    """(Σx)² ÷ (n · Σx²): 1 where all have the same, 1 ÷ n where one has everything; 1 of nobody and of nothing."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
