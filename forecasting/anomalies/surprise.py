"""How improbable a score is beside those before it, as -log10 of the probability: 3 is once in a thousand.

Any score, of any unit, becomes comparable and can be summed with others. The tail above the 0.98 quantile is taken to
be exponential (the Pickands theorem's case of shape 0), so that a score beyond all earlier ones still says how far.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from forecasting.series import Array

TAIL: Final = 0.02
"""The share of the scores that the tail is fitted on."""
FEWEST: Final = 50
"""Scores before the first surprise."""
MEMORY: Final = 5000
EVERY: Final = 5
"""Steps between two fits of the tail."""
CAP: Final = 50.0
"""A tail of no width would make any difference infinitely improbable."""


@dataclass(slots=True)
class Surprise:
    """The scores so far, and the tail fitted on them."""

    memory: Array = field(default_factory=lambda: np.zeros(MEMORY))
    seen: int = 0
    begin: float = 0.0
    """Where the tail begins."""
    width: float = 1.0
    share: float = TAIL
    fitted: bool = False

    def of(self, score: float) -> float:
        """The surprise of this score, from 0 to CAP; it is remembered."""
        if self.seen >= FEWEST and (not self.fitted or self.seen % EVERY == 0):
            self._fit()
        found = self._improbability(score) if self.fitted else 0.0
        self.memory[self.seen % MEMORY] = score
        self.seen += 1
        return found

    def _improbability(self, score: float) -> float:
        if score <= self.begin:
            return 0.0
        return min(-float(np.log10(self.share)) + (score - self.begin) / self.width / float(np.log(10)), CAP)

    def _fit(self) -> None:
        scores = self.memory[: min(self.seen, MEMORY)]
        count = max(int(len(scores) * TAIL), 5)
        tail = np.partition(scores, len(scores) - count)[len(scores) - count :]
        self.begin = float(tail.min())
        self.width = float((tail - self.begin).mean()) + 1e-9 * (abs(self.begin) + 1e-9) + 1e-12
        self.share, self.fitted = count / len(scores), True
