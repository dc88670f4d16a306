"""What a process of the pool gets and gives: plain values that pickle. Runs in the child; starts nothing."""

from __future__ import annotations

from dataclasses import dataclass

from forecasting.forecast import Forecast
from forecasting.series import Series


@dataclass(frozen=True, slots=True)
class Job:
    """One history, and how many steps beyond it are wanted."""

    series: Series
    steps: int


def run(job: Job) -> Forecast:
    """Raises: forecasting.errors.ForecastingError."""
    # The models and scipy are the child's to load: the operator starts half a second sooner without them.
    from forecasting.refresh import refresh

    return refresh(job.series, job.steps)
