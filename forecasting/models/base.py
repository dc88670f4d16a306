"""What a forecaster is: it learns parameters once, and then forecasts from any moment of a history.

Forecasting from many moments with one set of parameters is what makes a rolling backtest cheap. Row `i` of a forecast
may read only `values[: origins[i]]`; a test holds every model to that.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from forecasting.errors import BadSetting, HistoryTooShort
from forecasting.series import Array, Series

Origins = npt.NDArray[np.int64]


class Fitted(Protocol):
    """Learned parameters. Nothing of it changes by forecasting."""

    def forecast(self, values: Array, origins: Origins, steps: int) -> Array:
        """(origins, steps) loads for the `steps` after the first `origins[i]` of `values`; finite, maybe negative.

        values: (n,) on the grid of the series that it was fitted on, NaN where there is a gap.
        """
        ...


class Model(Protocol):
    """A way of forecasting, with its settings."""

    @property
    def name(self) -> str: ...

    def fit(self, series: Series) -> Fitted:
        """Learn from the whole series. Raises: HistoryTooShort."""
        ...


def predict(model: Model, series: Series, steps: int) -> Array:
    """(steps,) the loads after the end of `series`. Raises: HistoryTooShort, BadSetting."""
    if steps < 1:
        raise BadSetting(f"{model.name} of '{series.name}': {steps} steps were asked; at least 1 is allowed.")
    ahead = model.fit(series).forecast(series.values, np.array([len(series)]), steps)
    return np.asarray(ahead[0], dtype=np.float64)


def require(model: Model, series: Series, n: int) -> None:
    """Raises: HistoryTooShort where fewer than `n` steps of the series are observed."""
    if series.n_observed < n:
        raise HistoryTooShort(
            f"{model.name} of '{series.name}': {series.n_observed} observations; at least {n} are needed."
            " Use a model with fewer parameters or a longer history."
        )


def period_steps(model: Model, series: Series, period_s: float) -> int:
    """Raises: BadSetting where the steps do not divide the period."""
    steps = series.steps_in(period_s)
    if steps is None or steps < 2:
        raise BadSetting(
            f"{model.name} of '{series.name}': steps of {series.step_s} s do not divide a period of {period_s} s."
            " Regularise the series to a step that does."
        )
    return steps
