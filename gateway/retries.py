"""Whether, and when, a request is tried again. Pure but for the budget, which counts.

Never retries what a client has seen a byte of: that is refused before this module is asked.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum


class Failure(Enum):
    """Why an attempt brought no answer. The values are metric labels."""

    CONNECT = "connect"
    DRAINING = "draining"
    """The worker said it has not started this request."""
    CLOSED = "closed"
    RESET = "reset"
    MALFORMED = "malformed"
    TIMEOUT = "timeout"
    OUTRUN = "outrun"
    """Another attempt of the same request was quicker."""
    LOST = "lost"
    """The worker was found stopped or hung while the request was there, and another one could take it."""
    LEFT = "left"
    """The worker said, amid a stream, that another one should go on."""
    ANSWER = "answer"
    """It answered with an error where a stream was to go on."""
    REFUSED = "refused"
    """It said that the stream cannot go on."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    first_s: float = 0.01
    base_s: float = 0.1
    most_s: float = 2.0
    jitter: float = 0.5
    """Each wait but the first is multiplied by something in 1 ± this."""
    attempts: int = 10
    """All together they take about 10 s: as long as a rolling change or a restart hides a worker."""
    deaths: int = 3
    """Workers that die with the same request in hand: another one would, too."""
    budget_share: float = 0.2
    """Of the requests of the last `window_s`."""
    budget_floor_per_s: float = 3.0
    window_s: int = 10


def delay_s(retry: int, policy: RetryPolicy, rng: random.Random) -> float:
    """Before retry number 1, 2, …: 10 ms, then 100 ms doubling, with jitter."""
    if retry <= 1:
        return policy.first_s
    spread = 1.0 + policy.jitter * (2.0 * rng.random() - 1.0)
    return min(policy.base_s * 2.0 ** (retry - 2), policy.most_s) * spread


class RetryBudget:
    """Retries of one service over a sliding window: a share of its requests, and a floor that is always allowed."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._requests = [0] * policy.window_s
        self._retries = [0] * policy.window_s
        self._second = 0

    def request(self, now_s: float) -> None:
        """Counts a request, which earns its share of a retry."""
        second = int(now_s)
        if second != self._second:
            self._advance(second)
        self._requests[second % self._policy.window_s] += 1

    def spend(self, now_s: float) -> bool:
        """True, and counted, when one more retry is allowed now."""
        self._advance(int(now_s))
        if self.allowance < 1.0:
            return False
        self._retries[self._second % self._policy.window_s] += 1
        return True

    def count(self, now_s: float) -> None:
        """Counts a retry that is made in any case; others wait for it."""
        self._advance(int(now_s))
        self._retries[self._second % self._policy.window_s] += 1

    @property
    def allowance(self) -> float:
        """How many retries are left."""
        policy = self._policy
        earned = policy.budget_floor_per_s * policy.window_s + policy.budget_share * sum(self._requests)
        return earned - sum(self._retries)

    def _advance(self, second: int) -> None:
        window = self._policy.window_s
        for passed in range(max(self._second + 1, second - window + 1), second + 1):
            self._requests[passed % window] = 0
            self._retries[passed % window] = 0
        self._second = max(self._second, second)
