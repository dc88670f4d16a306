"""What a series takes, what it refuses and with which words."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.errors import (
    BadSetting,
    DisorderedTimes,
    DuplicateTime,
    ForecastingError,
    InfiniteValue,
    NegativeCount,
    SeriesError,
)
from forecasting.series import DAY_S, Aggregate, Series, regularise


def test_a_step_without_a_sample_is_a_gap_and_never_zero() -> None:
    made = regularise([0, 10, 40], [1, 2, 3], 10)
    assert np.array_equal(made.values, [1, 2, np.nan, np.nan, 3], equal_nan=True)
    assert made.gap_share == pytest.approx(0.4)


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0.5, 1e6)), min_size=1, max_size=60, unique_by=lambda s: s[0]))
def test_regularising_keeps_the_sum_and_makes_no_zero(samples: list[tuple[int, float]]) -> None:
    samples.sort()
    times, values = zip(*samples, strict=True)
    made = regularise(times, values, 7, aggregate=Aggregate.SUM)
    assert np.nansum(made.values) == pytest.approx(sum(values))
    assert (made.values[made.observed] > 0).all()


@pytest.mark.parametrize(
    ("aggregate", "wanted"),
    [(Aggregate.MEAN, 2.0), (Aggregate.SUM, 6.0), (Aggregate.MAX, 3.0), (Aggregate.LAST, 2.0)],
)
def test_samples_of_one_step_become_one_value(aggregate: Aggregate, wanted: float) -> None:
    assert regularise([0, 1, 2], [1, 3, 2], 10, aggregate=aggregate).values.tolist() == [wanted]


def test_a_sample_that_says_nothing_leaves_its_step_a_gap() -> None:
    for aggregate in Aggregate:
        made = regularise([0, 10, 20], [1, np.nan, 3], 10, aggregate=aggregate)
        assert np.isnan(made.values[1]), aggregate


@pytest.mark.parametrize(
    ("times", "values", "error", "words"),
    [
        ([0, 20, 10], [1, 2, 3], DisorderedTimes, "time 10.0 at sample 2 is before 20.0"),
        ([0, 10, 10], [1, 2, 3], DuplicateTime, "time 10.0 comes twice, at samples 1 and 2"),
        ([0, 10], [1, -2], NegativeCount, "-2.0 at index 1"),
        ([0, 10], [1, np.inf], InfiniteValue, "inf at index 1"),
        ([0, np.nan], [1, 2], InfiniteValue, "times must be finite"),
        ([0, 10], [1], SeriesError, "one value a time"),
        ([0, 1.7e12], [1, 1], SeriesError, "unit of the times"),
    ],
)
def test_bad_samples_are_refused_with_what_and_where(
    times: list[float], values: list[float], error: type[ForecastingError], words: str
) -> None:
    with pytest.raises(error, match=words) as raised:
        regularise(times, values, 10, name="chat")
    assert "'chat'" in str(raised.value)
    assert isinstance(raised.value, ForecastingError)


@pytest.mark.parametrize("step_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_step_that_is_no_length_is_refused(step_s: float) -> None:
    with pytest.raises(BadSetting, match="step_s"):
        Series(0, step_s, np.ones(3))


def test_a_series_cannot_be_changed_and_survives_pickling() -> None:
    made = Series(5, 10, np.array([1, np.nan, 3]), "chat")
    with pytest.raises(ValueError, match="read-only"):
        made.values[0] = 7
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert not again.values.flags.writeable


def test_cutting_keeps_the_times() -> None:
    made = Series(100, 10, np.arange(5.0))
    assert made.last(2).start_s == 130
    assert made.first(2).end_s == 120
    assert made.last(99) == made


def test_a_period_that_the_steps_do_not_divide_has_no_steps() -> None:
    assert Series(0, 600, np.ones(3)).steps_in(DAY_S) == 144
    assert Series(0, 7000, np.ones(3)).steps_in(DAY_S) is None
