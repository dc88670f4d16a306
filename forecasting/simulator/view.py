"""What a controller may see: scrapes of Prometheus-style counters and gauges, late and coarse.

Nothing of a request's answer is in it before it was produced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Scrape(NamedTuple):
    """The fleet at one time. Counters (`*_total`) count from the start; gauges are as of the scrape.

    kv_use: mean share 0..1 over ready replicas. running and waiting: requests of the whole fleet. judged: requests of
    which it is known whether they met their targets; good: those that did.
    """

    at_s: float
    requests_total: float
    input_tokens_total: float
    output_tokens_total: float
    finished_total: float
    running: float
    waiting: float
    kv_use: float
    ready: float
    judged_total: float = 0.0
    good_total: float = 0.0


@dataclass(frozen=True, slots=True)
class View:
    """Everything that a controller has to decide with at `now_s`. `scrapes`: old to new, the newest one already late.

    current: replicas asked for; ready: replicas that serve, as the orchestrator reports them (not late).
    """

    now_s: float
    current: int
    ready: int
    scrapes: Sequence[Scrape]

    @property
    def newest(self) -> Scrape | None:
        return self.scrapes[-1] if self.scrapes else None

    def window(self, length_s: float) -> Sequence[Scrape]:
        """The newest scrapes that span at most `length_s`; at least the newest one."""
        if not self.scrapes:
            return ()
        since_s = self.scrapes[-1].at_s - length_s - 1e-6
        first = len(self.scrapes) - 1
        while first > 0 and self.scrapes[first - 1].at_s >= since_s:
            first -= 1
        return self.scrapes[first:]

    def rates(self, length_s: float) -> Rates | None:
        """Mean rates over the newest `length_s` of scrapes; None with fewer than two."""
        seen = self.window(length_s)
        if len(seen) < 2:
            return None
        old, new = seen[0], seen[-1]
        span_s = new.at_s - old.at_s
        return Rates(
            (new.requests_total - old.requests_total) / span_s,
            (new.input_tokens_total - old.input_tokens_total) / span_s,
            (new.output_tokens_total - old.output_tokens_total) / span_s,
        )


@dataclass(frozen=True, slots=True)
class Rates:
    """Means over a window, per second."""

    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float
