"""What a process of the pool gets and gives: plain values that pickle. Runs in the child; starts nothing."""

from __future__ import annotations

from dataclasses import dataclass

from forecasting.forecast import Forecast
from forecasting.refresh import refresh
from forecasting.series import Series


@dataclass(frozen=True, slots=True)
class Job:
    """One history, and how many steps beyond it are wanted."""

    series: Series
    steps: int


def run(job: Job) -> Forecast:
    """Raises: forecasting.errors.ForecastingError."""
    return refresh(job.series, job.steps)
