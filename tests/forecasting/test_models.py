"""Every forecaster: known values, no look into the future, gaps, scale and shift, and its references."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from forecasting.errors import BadSetting, HistoryTooShort
from forecasting.models.base import Model, predict
from forecasting.models.decomposed import DecomposedSmoothing
from forecasting.models.fourier import FourierArima
from forecasting.models.lagged import LaggedRegression, lags_for
from forecasting.models.naive import Persistence, SeasonalNaive
from forecasting.models.smoothing import Smoothing, smooth
from forecasting.models.theta import Theta
from forecasting.series import DAY_S, Series
from tests.forecasting.builders import DAY, daily, series, with_gaps

FAST: list[Model] = [
    Persistence(),
    SeasonalNaive(),
    Smoothing(),
    Smoothing.holt_winters(),
    Smoothing(DAY_S),
    Theta(),
    LaggedRegression(),
    LaggedRegression(logarithm=False),
]
MEASURED: list[Model] = [Persistence(), SeasonalNaive(), Smoothing(), Smoothing(DAY_S), Theta()]


def name_of(model: Model) -> str:
    return model.name


def test_the_naive_forecasts_are_what_they_are_called() -> None:
    short = Series(0, DAY_S / 4, np.array([1.0, 2, 3, 4, 5, np.nan, 7, np.nan]))
    assert predict(Persistence(), short, 2).tolist() == [7, 7]
    assert predict(SeasonalNaive(), short, 6).tolist() == [5, 2, 7, 4, 5, 2]


@pytest.mark.parametrize("model", FAST, ids=name_of)
def test_no_forecast_reads_what_comes_after_its_origin(model: Model) -> None:
    values = with_gaps(daily(6), 0.05)
    fitted = model.fit(series(values[: 4 * DAY]))
    origins = np.array([4 * DAY, 4 * DAY + 77, 5 * DAY])
    whole = fitted.forecast(values, origins, 20)
    for row, origin in enumerate(origins):
        other = values.copy()
        other[origin:] = 12345.0
        assert np.allclose(fitted.forecast(other, origins[row : row + 1], 20)[0], whole[row]), model.name


@pytest.mark.parametrize("model", FAST, ids=name_of)
def test_a_tenth_of_gaps_changes_a_forecast_little(model: Model) -> None:
    values = daily(7, noise=0.01)
    plain, holed = predict(model, series(values), DAY), predict(model, series(with_gaps(values, 0.1)), DAY)
    assert np.mean(np.abs(plain - holed)) < 0.12 * values.mean()


@pytest.mark.parametrize("model", FAST, ids=name_of)
def test_ten_times_the_load_gives_ten_times_the_forecast(model: Model) -> None:
    values = daily(5)
    assert np.allclose(predict(model, series(10 * values), 30), 10 * predict(model, series(values), 30), rtol=1e-6)


@pytest.mark.parametrize("model", MEASURED, ids=name_of)
def test_a_load_that_is_higher_by_a_constant_gives_a_forecast_higher_by_it(model: Model) -> None:
    values = daily(5)
    assert np.allclose(predict(model, series(values + 50), 30), predict(model, series(values), 30) + 50)


@pytest.mark.parametrize("model", [SeasonalNaive(), Smoothing(DAY_S), Theta(), LaggedRegression()], ids=name_of)
def test_a_clean_day_is_repeated(model: Model) -> None:
    values = daily(6, noise=0.0)
    ahead = predict(model, series(values), DAY)
    assert np.mean(np.abs(ahead - values[:DAY])) < 3


@pytest.mark.parametrize("model", FAST, ids=name_of)
def test_a_constant_load_stays_constant(model: Model) -> None:
    assert np.allclose(predict(model, series(np.full(4 * DAY, 7.0)), 12), 7.0)


@pytest.mark.parametrize("model", FAST, ids=name_of)
def test_a_service_without_load_is_forecast_to_have_none(model: Model) -> None:
    assert np.allclose(predict(model, series(np.zeros(4 * DAY)), 12), 0.0)


@pytest.mark.parametrize("model", FAST, ids=name_of)
def test_a_history_of_nothing_is_refused(model: Model) -> None:
    with pytest.raises(HistoryTooShort, match="needed"):
        predict(model, series(np.full(10 * DAY, np.nan)), 3)


def test_a_period_that_the_steps_do_not_divide_is_refused() -> None:
    with pytest.raises(BadSetting, match="do not divide"):
        predict(SeasonalNaive(), series(daily(3), step_s=700.0), 3)
    with pytest.raises(BadSetting, match="0 steps"):
        predict(Persistence(), series(daily(1)), 0)


def test_smoothing_is_that_of_statsmodels_with_the_same_parameters() -> None:
    values = daily(3)[::12]
    alpha, beta, phi = 0.4, 0.2, 0.9
    start = float(values[:10].mean())
    reference = ExponentialSmoothing(
        values, trend="add", damped_trend=True, initialization_method="known", initial_level=start, initial_trend=0.0
    ).fit(smoothing_level=alpha, smoothing_trend=beta, damping_trend=phi, optimized=False)
    # Theirs weighs the change of the level by beta*, where ours moves the trend by alpha × beta of the error.
    run = smooth(values, np.array([[alpha], [beta], [phi], [0.0]]), 0)
    ahead = run.level[-1, 0] + run.trend[-1, 0] * np.cumsum(phi ** np.arange(1, 6))
    assert np.allclose(ahead, reference.forecast(5), rtol=1e-6)


def test_one_candidate_smooths_as_it_does_beside_others() -> None:
    values = with_gaps(daily(4), 0.1)
    grid = np.array([[0.3, 0.6], [0.1, 0.2], [0.95, 0.9], [0.2, 0.1]])
    both = smooth(values, grid, DAY)
    for at in range(2):
        one = smooth(values, grid[:, [at]], DAY)
        assert np.allclose(one.level[:, 0], both.level[:, at])
        assert np.allclose(one.season[:, 0], both.season[:, at])
        assert np.allclose(one.squared_error[0], both.squared_error[at])


def test_a_regression_finds_the_autoregression_that_made_the_load() -> None:
    rng = np.random.default_rng(3)
    values = np.full(4000, 100.0)
    for at in range(2, len(values)):
        values[at] = 100 + 0.5 * (values[at - 1] - 100) + 0.3 * (values[at - 2] - 100) + rng.standard_normal()
    fitted = LaggedRegression(logarithm=False).fit(series(values, step_s=7000.0))
    assert fitted.weights[:2] == pytest.approx([0.5, 0.3], abs=0.06)
    assert fitted.weights[2:] == pytest.approx(np.zeros(4), abs=0.06)


def test_lags_are_no_more_than_the_history_can_carry() -> None:
    assert lags_for(80, DAY, 7 * DAY).tolist() == [1, 2, 3, 4, 5, 6]
    for n in (100, 300, 1000, 2016, 5000):
        lags = lags_for(n, DAY, 7 * DAY)
        assert n - lags.max() >= 6 * len(lags), n
    assert 7 * DAY in lags_for(2016, DAY, 7 * DAY)


@pytest.mark.parametrize("model", [DecomposedSmoothing(), FourierArima()], ids=name_of)
def test_the_thorough_models_repeat_a_day_and_live_with_gaps(model: Model) -> None:
    values = daily(20, noise=0.02)[::6]
    hourly = Series(0, 3600, with_gaps(values, 0.03), "api")
    ahead = predict(model, hourly, 24)
    assert np.mean(np.abs(ahead - values[:24])) < 0.06 * values.mean()
