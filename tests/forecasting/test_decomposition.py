"""Load = Trend + Seasonal + Residual."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.decomposition import decompose
from forecasting.errors import HistoryTooShort
from forecasting.series import DAY_S, Series
from tests.forecasting.builders import DAY, daily, series, with_gaps


def test_the_parts_sum_to_the_load_and_gaps_stay_gaps() -> None:
    values = with_gaps(daily(6), 0.05)
    found = decompose(series(values))
    whole = found.trend + found.season + found.residual
    assert np.allclose(whole[~np.isnan(values)], values[~np.isnan(values)])
    assert np.isnan(found.residual[np.isnan(values)]).all()
    assert np.isfinite(found.trend).all()
    assert found.periods_s == (DAY_S,)


def test_a_daily_load_has_a_strong_season_and_noise_has_a_weak_one() -> None:
    noise = 100 + np.random.default_rng(0).standard_normal(6 * DAY)
    assert decompose(series(daily(6, noise=0.02))).seasonal_strength > 0.9
    assert decompose(series(noise)).seasonal_strength < 0.7


def test_two_weeks_of_hours_have_a_day_and_a_week() -> None:
    at = np.arange(24 * 21)
    values = 100 + 30 * np.sin(2 * np.pi * at / 24) + 20 * np.sin(2 * np.pi * at / 168)
    found = decompose(Series(0, 3600, values))
    assert len(found.seasonal) == 2
    assert np.abs(found.residual).mean() < 2
    assert "day" in found.explain(50)
    assert "week" in found.explain(50)


def test_an_explanation_is_a_sum_that_holds() -> None:
    values = daily(4)
    values[10] = np.nan
    found = decompose(series(values))
    left, right = found.explain(100).split(" = ")
    terms = [float(part.split()[-1]) for part in right.split(" + ")]
    assert sum(terms) == pytest.approx(float(left), rel=1e-2)
    assert found.explain(10).startswith("no measurement")


def test_a_history_of_less_than_two_periods_is_refused() -> None:
    with pytest.raises(HistoryTooShort, match="no two periods"):
        decompose(series(daily(1.5)))
