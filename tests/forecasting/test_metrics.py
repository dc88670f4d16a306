"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.errors import BadSetting
from forecasting.metrics import coverage, mase, pinball, skill, smape, wape, weighted_quantile_loss


def test_errors_are_what_hand_calculation_gives() -> None:
    history = np.array([1.0, 2, 3, 4])
    actual, forecast = np.array([10.0, 20]), np.array([12.0, 16])
    assert mase(history, actual, forecast, 2) == pytest.approx(3 / 2)
    assert smape(actual, forecast) == pytest.approx(200 * (2 / 22 + 4 / 36) / 2)
    assert wape(actual, forecast) == pytest.approx(6 / 30)
    assert pinball(actual, forecast, 0.9) == pytest.approx((0.1 * 2 + 0.9 * 4) / 2)


def test_what_was_not_observed_is_left_out() -> None:
    actual, forecast = np.array([10.0, np.nan]), np.array([12.0, 5])
    assert wape(actual, forecast) == pytest.approx(0.2)
    assert coverage(actual, forecast - 3, forecast) == 1.0
    quantiles = np.array([[8.0, 12.0], [0.0, 99.0]])
    assert weighted_quantile_loss(actual, quantiles, (0.1, 0.9)) == pytest.approx(2 * 0.2 / 10)


def test_what_cannot_be_measured_is_nan_and_not_zero() -> None:
    assert np.isnan(mase(np.ones(10), np.ones(2), np.ones(2), 2))
    assert np.isnan(wape(np.zeros(2), np.ones(2)))
    assert np.isnan(coverage(np.array([np.nan]), np.zeros(1), np.ones(1)))


def test_skill_is_above_zero_where_losses_are_lower_and_its_bounds_hold_it() -> None:
    rng = np.random.default_rng(0)
    reference = rng.exponential(1.0, 60)
    found = skill(0.7 * reference, reference, rng)
    assert found.value == pytest.approx(0.3)
    assert found.lower == pytest.approx(0.3)
    noisy = skill(reference * rng.uniform(0.4, 1.2, 60), reference, rng)
    assert noisy.lower < noisy.value < noisy.upper
    with pytest.raises(BadSetting, match="one pair a block"):
        skill(np.ones(3), np.ones(4), rng)
