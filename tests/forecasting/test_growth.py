"""Quantiles of the peak ahead: calibrated, blind to the future, and silent about gaps."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.errors import BadSetting, HistoryTooShort
from forecasting.growth import LEVELS, learn, peaks_of
from forecasting.series import Array


def load(n: int, seed: int = 0) -> Array:
    """A daily wave with noise that lasts for minutes, in steps of 15 s."""
    random = np.random.default_rng(seed)
    at = np.arange(n)
    noise = np.convolve(random.normal(0, 0.3, n + 39), np.ones(40) / 40, "valid")
    return np.asarray(100 * (1.5 + np.sin(2 * np.pi * at / 5760)) * np.exp(noise), dtype=np.float64)


def test_the_quantiles_cover_what_they_promise_on_later_days() -> None:
    values = load(5760 * 4)
    peaks = peaks_of(values, 15.0, unit=1.0)
    growth = learn(peaks, 5760 * 2, 4)
    level = LEVELS.index(0.95)
    below = [
        peaks.mean[at + 1 : at + 17].max() <= growth.quantiles(float(peaks.behind[at]))[3, level]
        for at in range(5760 * 2, 5760 * 4 - 20, 7)
    ]
    assert np.mean(below) == pytest.approx(0.95, abs=0.03)


def test_quantiles_rise_with_the_level_and_with_the_time_ahead() -> None:
    peaks = peaks_of(load(5760), 15.0)
    quantiles = learn(peaks, 5760, 8).quantiles(float(peaks.behind[-1]))
    assert (np.diff(quantiles, axis=0) >= 0).all()
    assert (np.diff(quantiles, axis=1) >= 0).all()


def test_nothing_after_the_present_is_read() -> None:
    values = load(5760)
    changed = values.copy()
    changed[3000:] = 1e9
    one, two = (learn(peaks_of(each, 15.0, unit=1.0), 3000, 4) for each in (values, changed))
    assert np.array_equal(one.ratios, two.ratios)
    before, after = peaks_of(values, 15.0, unit=1.0), peaks_of(changed, 15.0, unit=1.0)
    assert np.array_equal(before.behind[:3000], after.behind[:3000])


def test_gaps_are_left_out_and_a_gap_at_the_end_has_no_forecast() -> None:
    values = load(5760)
    values[1000:1500] = np.nan
    growth = learn(peaks_of(values, 15.0), 5760, 4)
    assert np.isfinite(growth.ratios).all()
    values[-60:] = np.nan
    with pytest.raises(BadSetting, match="gaps"):
        growth.quantiles(float(peaks_of(values, 15.0).behind[-1]))


def test_too_short_a_history_and_too_coarse_steps_are_refused() -> None:
    with pytest.raises(HistoryTooShort, match="60 are needed"):
        learn(peaks_of(load(30), 15.0), 30, 4)
    with pytest.raises(HistoryTooShort, match="no load was observed"):
        peaks_of(np.full(10, np.nan), 15.0)
    with pytest.raises(BadSetting, match="too coarse"):
        peaks_of(load(30), 600.0)
