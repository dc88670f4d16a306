"""Baselines that need no more than a measured or remembered rate: static, persistence, seasonal naive, hourly."""

from __future__ import annotations

from forecasting.series import DAY_S, WEEK_S
from forecasting.simulator.autoscalers.common import Highest, Sizing, whole
from forecasting.simulator.record import STEP_S, Record
from forecasting.simulator.view import View

HOUR = 3600 // STEP_S


class Static:
    """A fixed number of replicas; at the peak's need it is what careful people do without an autoscaler."""

    name = "static peak"
    period_s = 60

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas

    def desired(self, view: View) -> int:
        return self._replicas


class Persistence:
    """The present work rate × headroom; down only after a while."""

    name = "persistence + headroom"
    period_s = 15

    def __init__(self, sizing: Sizing, headroom: float, window_s: float, down_s: float) -> None:
        self._sizing, self._headroom, self._window_s = sizing, headroom, window_s
        self._highest = Highest(down_s)

    def desired(self, view: View) -> int:
        rates = view.rates(self._window_s)
        if rates is None:
            return view.current
        work = rates.output_tokens_per_s + self._sizing.input_weight * rates.input_tokens_per_s
        # Output that is late hides load; what arrives does not.
        work = max(work, rates.requests_per_s / self._sizing.requests_per_s * self._sizing.work_per_s)
        return self._highest.of(view.now_s, whole(work * self._headroom / self._sizing.work_per_s))


class Seasonal:
    """The rate of the same time a season ago, over the lead time ahead, × headroom; persistence before that."""

    name = "seasonal naive + headroom"
    period_s = 60

    def __init__(self, sizing: Sizing, record: Record, headroom: float, lead_s: float, season_s: float = DAY_S) -> None:
        self._sizing, self._record, self._headroom = sizing, record, headroom
        self._lead, self._season = int(lead_s // STEP_S) + 1, int(season_s // STEP_S)
        self._work = record.work(sizing.input_weight)

    def desired(self, view: View) -> int:
        known = self._record.known_until(view.now_s)
        if not known:
            return view.current
        first = known - self._season
        span = self._work[first : first + self._lead + 1] if first >= 0 else self._work[known - 1 : known]
        return whole(float(span.max()) * self._headroom / self._sizing.work_per_s)


class Hourly:
    """As AWS predictive scaling: for each hour a forecast of the load from the same hours of the last days, capacity
    for it from a buffer before the hour on, and target tracking on what is measured beside it."""

    name = "hourly predictive"
    period_s = 60

    def __init__(
        self, sizing: Sizing, record: Record, headroom: float, buffer_s: float, days: int, down_s: float
    ) -> None:
        self._sizing, self._record, self._headroom, self._buffer_s, self._days = (
            sizing,
            record,
            headroom,
            buffer_s,
            days,
        )
        self._work = record.work(sizing.input_weight)
        self._tracking = Persistence(sizing, headroom, 60, down_s)

    def desired(self, view: View) -> int:
        ahead = max(self._forecast(view.now_s), self._forecast(view.now_s + self._buffer_s))
        return max(whole(ahead * self._headroom / self._sizing.work_per_s), self._tracking.desired(view))

    def _forecast(self, time_s: float) -> float:
        """Mean over the last days of the mean load of the hour that holds `time_s`, the same weekday counted twice."""
        hour = int((self._record.past_steps + time_s // STEP_S) // HOUR * HOUR)
        known, total, count = self._record.known_until(time_s), 0.0, 0
        for back in range(1, self._days + 1):
            first = hour - back * int(DAY_S // STEP_S)
            if first < 0 or first + HOUR > known:
                continue
            weight = 2 if back * DAY_S % WEEK_S == 0 else 1
            total += weight * float(self._work[first : first + HOUR].mean())
            count += weight
        return total / count if count else 0.0
