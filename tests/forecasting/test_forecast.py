"""A forecast holds only what is safe to act on."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from forecasting.errors import BadSetting
from forecasting.forecast import Forecast


def made(quantiles: list[list[float]]) -> Forecast:
    return Forecast("chat", 1000.0, 60.0, (0.1, 0.5, 0.9), np.array(quantiles), "ensemble", "because")


@pytest.mark.parametrize("bad", [[[1, 2, np.nan]], [[1, 2, np.inf]], [[-1, 2, 3]], [[3, 2, 4]], [[1, 2]], []])
def test_nan_infinite_negative_or_crossing_quantiles_are_refused(bad: list[list[float]]) -> None:
    with pytest.raises(BadSetting):
        made(bad)


def test_a_level_between_two_known_ones_lies_between_their_quantiles() -> None:
    assert made([[1, 2, 4]]).quantile(0.7).tolist() == pytest.approx([3.0])
    with pytest.raises(BadSetting, match=r"0\.1 to 0\.9 are known"):
        made([[1, 2, 4]]).quantile(0.99)


def test_a_time_outside_reads_the_nearest_step() -> None:
    forecast = made([[1, 2, 3], [4, 5, 6]])
    assert forecast.at(0, 0.5) == 2
    assert forecast.at(1060, 0.5) == 5
    assert forecast.at(1e9, 0.5) == 5
    assert forecast.peak(1059, 0.9) == 3
    assert forecast.peak(1060, 0.9) == 6


def test_a_forecast_survives_pickling() -> None:
    forecast = made([[1, 2, 3]])
    again = pickle.loads(pickle.dumps(forecast))
    assert np.array_equal(again.quantiles, forecast.quantiles)
    assert (again.name, again.end_s, again.levels) == ("chat", 1060.0, (0.1, 0.5, 0.9))
