"""The operator's forecast over a trace: what `forecasting.standing`, `refresh` and `near` would have said at each time.

What arrives does not depend on the number of replicas, so the looks are made once for a trace, before any run, and all
runs share them. Nothing after the time of a look, or of a glance at the last minutes, is read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from forecasting import near
from forecasting.counts import Counts, tokens_per_request, work_series
from forecasting.growth import Growth
from forecasting.near import learned, present_of, sharpened
from forecasting.policy import LoadForecast
from forecasting.refresh import refresh
from forecasting.simulator.arrivals import SecondArrivals
from forecasting.simulator.requests import Floats, Requests
from forecasting.standing import AHEAD_STEPS, Forecasted, Schedule, Standing, foretold, hindered, looked, renewed


@dataclass(frozen=True, slots=True)
class _Look:
    """What came of one; work_each: of a request, as of then."""

    said: Forecasted
    growth: Growth | None
    learned_s: float
    work_each: float


class OperatorForecasts:
    """Looks every `schedule.refresh_s`, from the last one before the trace begins (Unix time `start_s`) to its end.

    counts: of the trace, and of what was before it where that is known, in `schedule.step_s`; minutes: in minutes. Made
    to be stopped between two looks, pickled, read back and gone on with.
    """

    def __init__(
        self,
        counts: Counts,
        minutes: Counts,
        input_weight: float,
        lead_time_s: float,
        start_s: float,
        duration_s: float,
        schedule: Schedule | None = None,
    ) -> None:
        self.schedule = schedule or Schedule()
        self._counts, self._minutes = counts, minutes
        self._input_weight, self._lead_time_s = input_weight, lead_time_s
        self._start_s = start_s
        # An operator looks whenever its process began; the middle of a step is the mean of that.
        every_s, phase_s = self.schedule.refresh_s, self.schedule.step_s / 2
        self._first_s = math.floor((start_s - phase_s) / every_s) * every_s + phase_s
        self.looks = math.ceil((start_s + duration_s - self._first_s) / every_s)
        self._standing = Standing()
        self._looks: list[_Look] = []
        self._given: tuple[tuple[int, float], LoadForecast | None] | None = None

    def run(self, progress: Callable[[float], None] | None = None) -> OperatorForecasts:
        """All looks, from where it stopped; `progress` is told the share that is done."""
        while len(self._looks) < self.looks:
            self._looks.append(self._look())
            if progress is not None:
                progress(len(self._looks) / self.looks)
        return self

    def at(self, now_s: float) -> LoadForecast | None:
        """As of the last look and the newest minute, in seconds of the trace."""
        of = self._look_at(now_s), near.settled_s(self._start_s + now_s)
        if self._given is None or self._given[0] != of:
            said = self.said_at(now_s).forecast
            self._given = of, said and replace(said, issued_s=said.issued_s - self._start_s)
        return self._given[1]

    def said_at(self, now_s: float) -> Forecasted:
        """What the operator would have told, in Unix time."""
        look, now_s = self._looks[self._look_at(now_s)], self._start_s + now_s
        end_s = near.settled_s(now_s)
        minutes = self._minutes.between(end_s - near.PRESENT_S, end_s)
        present = present_of(minutes.arrivals, end_s, look.work_each)
        return sharpened(look.said, look.growth, present, self._lead_time_s, now_s)

    def shares(self) -> Mapping[str, float]:
        """Of the time, by the reason for which the forecast had its say (`Calibrated`) or had none, largest first."""
        return {reason: n / self.looks for reason, n in Counter(one.said.reason for one in self._looks).most_common()}

    def _look_at(self, now_s: float) -> int:
        look = int((self._start_s + now_s - self._first_s) // self.schedule.refresh_s)
        return min(look, self.looks - 1)

    def _look(self) -> _Look:
        now_s = self._first_s + len(self._looks) * self.schedule.refresh_s
        end_s = now_s // self.schedule.step_s * self.schedule.step_s
        known = self._counts.between(end_s - self.schedule.history_s, end_s)
        series = work_series(known, self._input_weight, "trace")
        self._standing = looked(self._standing, series, now_s)
        growth, learned_s = (self._looks[-1].growth, self._looks[-1].learned_s) if self._looks else (None, -math.inf)
        if not hindered(self._standing):
            forecast = refresh(series, AHEAD_STEPS)
            self._standing = renewed(self._standing, series, forecast, self._lead_time_s, now_s)
            if near.is_due(growth, learned_s, self._lead_time_s, now_s):
                growth, learned_s = self._learned(now_s), now_s
        each = float(tokens_per_request(known, self._input_weight)[-1])
        return _Look(foretold(self._standing, self._lead_time_s, now_s), growth, learned_s, each)

    def _learned(self, now_s: float) -> Growth | None:
        end_s = near.settled_s(now_s)
        return learned(self._minutes.between(end_s - near.LEARNED_S, end_s).arrivals, self._lead_time_s)


def counts_of(arrivals: SecondArrivals, requests: Requests | None, start_s: float, step_s: float) -> Counts:
    """Whole steps of a trace that begins at Unix time `start_s`, at multiples of `step_s`, as gateways count them.

    Requests count as answered when they come: answers only say how heavy requests are, over an hour. Where single
    requests are not known, all answers are as long as the mean one.
    """
    if requests is None:
        outputs = arrivals.counts * (arrivals.lengths.decode + 1)
    else:
        at = np.minimum(requests.arrival_s.astype(np.int64), len(arrivals) - 1)
        written = requests.output_tokens.astype(np.float64)
        outputs = np.asarray(np.bincount(at, weights=written, minlength=len(arrivals)), dtype=np.float64)
    first_s = math.ceil(start_s / step_s) * step_s
    skipped, length = round(first_s - start_s), round(step_s)
    came, inputs, answers = (_sums(each, skipped, length) for each in (arrivals.counts, arrivals.inputs, outputs))
    return Counts(first_s, step_s, came, came, inputs, answers)


def _sums(values: Floats, skipped: int, length: int) -> Floats:
    whole = max(len(values) - skipped, 0) // length * length
    return np.asarray(values[skipped : skipped + whole].reshape(-1, length).sum(axis=1), dtype=np.float64)
