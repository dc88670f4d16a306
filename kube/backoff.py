"""Delays between attempts: exponential with jitter, so that a fleet of clients does not return at once. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """`first_s`, then × `factor` up to `most_s`, each spread by ± `spread` of itself."""

    first_s: float = 0.1
    factor: float = 1.6
    most_s: float = 2.0
    spread: float = 0.2

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """How long to wait after `failures` failures in a row (1 is the first)."""
        exponent = min(max(failures - 1, 0), 64)
        plain_s = min(self.first_s * self.factor**exponent, self.most_s)
        return plain_s * rng.uniform(1 - self.spread, 1 + self.spread)
