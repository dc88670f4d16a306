"""What is foretold of one service, whether it came true, and so whether it has a say: the operator's forecast path.

    counts → work_series → looked → refresh → renewed → foretold

The operator goes this way at each look, `refresh` in a process of its own, and the simulator over a trace, so that what
is tried is what will be done. Never reads a clock and never refreshes by itself: the models take half a second to load.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from forecasting.calibration import LEVELS, Calibration, Promise, observed, promised
from forecasting.forecast import Forecast
from forecasting.policy import LoadForecast
from forecasting.series import DAY_S, Series

AHEAD_STEPS: Final = 24
BELIEVED: Final = 4.0
"""Times the highest load ever seen: as high as `forecasting.refresh` ever goes, so that what is beyond is a mistake."""
SAID_LEVELS: Final = (0.5, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99)
"""What the policy gets of each forecast: few, for they are recorded with every decision."""
STALE_STEPS: Final = 3
"""Steps without a measurement at the end of the history, after which nothing is foretold from it."""
PASSING: Final = ("HistoryUnavailable", "ForecastFailed")
"""Troubles that say nothing against the last forecast."""
UNTAUGHT: Final = "persistence"
"""The `reason` of a forecast that had too little history to learn from."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often, from how much, and in which steps."""

    step_s: float = 600.0
    refresh_s: float = 600.0
    history_s: float = 14 * DAY_S


@dataclass(frozen=True, slots=True)
class Made:
    """One forecast and what it came from."""

    forecast: Forecast
    series: Series
    made_s: float
    said: LoadForecast
    """The same for decisions, of which there are many."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest forecast of a service, and what became of the ones before it."""

    made: Made | None = None
    calibration: Calibration = field(default_factory=Calibration)
    trouble: tuple[str, str] | None = None
    """Reason and message of what hinders a newer forecast."""


@dataclass(frozen=True, slots=True)
class Forecasted:
    """What was foretold of a service, and whether to act on it. `message` holds no number that changes by itself."""

    forecast: LoadForecast | None
    trusted: bool
    reason: str
    message: str


def looked(standing: Standing, series: Series, now_s: float) -> Standing:
    """With what came since. Where it is then `hindered`, nothing can be foretold from this history.

    A passing trouble stays until there is a newer forecast.
    """
    calibration = observed(standing.calibration, _truth(series), now_s)
    trouble = _hindrance(series) or (None if hindered(standing) else standing.trouble)
    return replace(standing, calibration=calibration, trouble=trouble)


def hindered(standing: Standing) -> bool:
    """Whether its trouble speaks against the last forecast, too."""
    return standing.trouble is not None and standing.trouble[0] not in PASSING


def renewed(standing: Standing, series: Series, forecast: Forecast, lead_time_s: float, now_s: float) -> Standing:
    """With a new forecast of the history that was looked at."""
    made = Made(forecast, series, now_s, load_forecast(forecast, series))
    calibration = promised(standing.calibration, promise_of(forecast, lead_time_s))
    return replace(standing, made=made, calibration=calibration, trouble=None)


def foretold(standing: Standing, lead_time_s: float, now_s: float) -> Forecasted:
    """What a decision may use of it, and why not."""
    made, trouble = standing.made, standing.trouble
    ran_out = made is None or _ran_out(made, lead_time_s, now_s)
    if trouble is not None and (ran_out or hindered(standing)):
        return Forecasted(None, False, *trouble)
    assert made is not None, "without trouble there is a forecast"
    if ran_out:
        message = "The last forecast ran out and the next one is overdue; the measured load decides meanwhile."
        return Forecasted(None, False, "ForecastOverdue", message)
    if made.forecast.reason == UNTAUGHT:
        return Forecasted(None, False, "NoHistory", "There is too little history to learn from yet.")
    if not standing.calibration.trusted:
        message = "Its intervals have not kept what they promise; the measured load decides until they do again."
        return Forecasted(replace(made.said, calibrated=False), False, "CoverageLost", message)
    if trouble is not None:
        return Forecasted(made.said, True, trouble[0], f"{trouble[1]} The last forecast is used until it runs out.")
    return Forecasted(made.said, True, "Calibrated", "The forecast keeps what it promises and has its say.")


def _ran_out(made: Made, lead_time_s: float, now_s: float) -> bool:
    """It ends before a worker that is asked for now would serve; one that never went so far is used to its end."""
    last_s = made.forecast.end_s - lead_time_s
    return now_s > (last_s if last_s > made.made_s else made.forecast.end_s)


def load_forecast(forecast: Forecast, series: Series) -> LoadForecast:
    """In the policy's shape. The highest load ever seen bounds what is believed."""
    columns = [forecast.quantile(level).tolist() for level in SAID_LEVELS]
    highest = float(series.values[series.observed].max())
    return LoadForecast(
        issued_s=forecast.origin_s,
        step_s=forecast.step_s,
        levels=SAID_LEVELS,
        values=tuple(tuple(round(value, 3) for value in row) for row in zip(*columns, strict=True)),
        plausible_max=BELIEVED * highest + 1.0,
    )


def promise_of(forecast: Forecast, lead_time_s: float) -> Promise:
    """The intervals of the step in which a worker that is asked for now would begin to serve."""
    step = min(int(lead_time_s // forecast.step_s), forecast.steps - 1)
    intervals = tuple(
        (float(forecast.quantile((1 - level) / 2)[step]), float(forecast.quantile((1 + level) / 2)[step]))
        for level in LEVELS
    )
    return Promise(forecast.origin_s + step * forecast.step_s, intervals)


def _truth(series: Series) -> list[tuple[float, float]]:
    recent = series.last(4 * AHEAD_STEPS)
    return [
        (float(at), float(value)) for at, value in zip(recent.times_s, recent.values, strict=True) if value == value
    ]


def _hindrance(series: Series) -> tuple[str, str] | None:
    """Why nothing can be foretold from this history."""
    if not series.n_observed:
        return "NoHistory", "Nothing was measured yet; the measured load will decide."
    if not series.last(STALE_STEPS).n_observed:
        return "HistoryStale", "The history ends in the past: nobody counted requests lately. Are the gateways scraped?"
    return None
