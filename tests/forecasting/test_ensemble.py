"""Backtest, weights and combination."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.backtest import Backtest, actual_after, backtest, origins_for
from forecasting.ensemble import combined, median, weights_from
from forecasting.errors import BadSetting
from forecasting.models.naive import Persistence, SeasonalNaive
from tests.forecasting.builders import DAY, daily, series


def test_origins_are_counted_back_from_the_latest() -> None:
    assert origins_for(20, 5, 4).tolist() == [7, 11, 15, 19]
    assert origins_for(20, 5, 4, last=16).tolist() == [8, 12, 16]
    assert origins_for(3, 5, 1).tolist() == []
    with pytest.raises(BadSetting):
        origins_for(20, 5, 0)


def test_what_came_after_an_origin_is_unknown_beyond_the_end() -> None:
    after = actual_after(np.arange(5.0), np.array([2, 4]), 3)
    assert np.array_equal(after, [[2, 3, 4], [4, np.nan, np.nan]], equal_nan=True)


def test_the_better_model_of_each_horizon_weighs_more() -> None:
    values = daily(10, noise=0.01)
    tested = backtest([Persistence(), SeasonalNaive()], series(values), origins_for(len(values), 5 * DAY, 6), 60)
    weights = weights_from(tested)
    assert weights.values.sum(axis=0) == pytest.approx(np.ones(60))
    assert weights.values[0, 0] > 0.3
    assert weights.values[1, -1] == 1.0
    assert weights.explain(59).startswith("1.00 day before (error")


def test_a_model_that_says_nothing_has_no_part() -> None:
    said = np.array([[[1.0, 2.0]], [[np.nan, 4.0]]])
    weights = np.array([[0.25, 0.25], [0.75, 0.75]])
    assert combined(said, weights).tolist() == [[1.0, 3.5]]
    assert median(np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]]))[0] == 2.0


def test_without_any_outcome_all_models_weigh_alike() -> None:
    nothing = Backtest(("a", "b"), np.array([4]), np.ones((2, 1, 3)), np.full((1, 3), np.nan))
    weights = weights_from(nothing)
    assert (weights.values == 0.5).all()
    assert "no outcome yet" in weights.explain(0)


def test_a_model_that_could_not_be_fitted_yet_is_silent_in_the_backtest() -> None:
    values = daily(3)
    tested = backtest([SeasonalNaive()], series(values), np.array([20, 2 * DAY]), 4, refits=2)
    assert np.isnan(tested.forecasts[0, 0]).all()
    assert np.isfinite(tested.forecasts[0, 1]).all()
    with pytest.raises(BadSetting, match="no origins"):
        backtest([Persistence()], series(values), np.zeros(0, dtype=np.int64), 4)
