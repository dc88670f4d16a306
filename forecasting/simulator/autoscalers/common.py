"""What several autoscalers share: sizes of one replica, and holding the highest wish of a while."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizing:
    """What every autoscaler is told about one replica at its most: the profile in the numbers that they take.

    requests_per_s, work_per_s (output tokens/s plus input_weight × input tokens/s), running (requests held at that
    rate), kv_use (share of its KV cache then), and the mean lengths of a request.
    """

    requests_per_s: float
    work_per_s: float
    input_weight: float
    running: float
    kv_use: float
    input_tokens: float
    output_tokens: float


class Highest:
    """The highest value of the last `window_s`: down-stabilisation as the HPA has it."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, now_s: float, value: int) -> int:
        seen = self._seen
        while seen and seen[-1][1] <= value:
            seen.pop()
        seen.append((now_s, value))
        while seen[0][0] < now_s - self._window_s:
            seen.popleft()
        return seen[0][1]


def whole(replicas: float) -> int:
    """Rounded up, but not for a rounding error of floats."""
    return max(math.ceil(replicas - 1e-6), 0)
