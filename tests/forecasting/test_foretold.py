"""The operator's forecast over a trace: when it looks, what it may know, and that it can be stopped."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from forecasting.counts import Counts
from forecasting.series import Array
from forecasting.simulator.arrivals import SecondArrivals, lengths_around, per_second
from forecasting.simulator.autoscalers.foretold import OperatorForecasts, counts_of
from forecasting.simulator.requests import Requests
from forecasting.standing import Schedule

HOUR_S = 3600
SCHEDULE = Schedule(refresh_s=1800.0)


def trace(rate: Array) -> SecondArrivals:
    return SecondArrivals(rate, 100 * rate, lengths_around(100, 40))


def forecasts_of(rate: Array, start_s: float = 0.0) -> OperatorForecasts:
    counts, minutes = (counts_of(trace(rate), None, start_s, step_s) for step_s in (600.0, 60.0))
    return OperatorForecasts(counts, minutes, 0.25, 300.0, start_s, len(rate), SCHEDULE)


def test_what_comes_later_changes_nothing_that_was_foretold() -> None:
    calm = np.full(6 * HOUR_S, 5.0)
    storm = np.where(np.arange(len(calm)) < 5 * HOUR_S, calm, 80.0)
    one, two = forecasts_of(calm).run(), forecasts_of(storm).run()
    assert one.said_at(5 * HOUR_S) == two.said_at(5 * HOUR_S)
    assert one.said_at(5 * HOUR_S).forecast is not None
    assert one.said_at(6 * HOUR_S - 1) != two.said_at(6 * HOUR_S - 1)


def test_it_has_no_say_before_it_has_learned_and_tells_for_how_long() -> None:
    said = forecasts_of(np.full(8 * HOUR_S, 5.0)).run()
    assert said.at(0.0) is None
    assert said.at(8 * HOUR_S - 15.0) is not None
    assert set(said.shares()) == {"NoHistory", "Calibrated"}
    assert sum(said.shares().values()) == pytest.approx(1.0)
    assert 2 / 8 < said.shares()["NoHistory"] < 4 / 8, "16 steps are needed"


def test_one_that_was_stopped_goes_on_and_ends_the_same() -> None:
    rate = np.random.default_rng(0).poisson(5.0, 5 * HOUR_S).astype(np.float64)
    whole = forecasts_of(rate).run()
    kept, seen = forecasts_of(rate), list[float]()

    def stop(share: float) -> None:
        seen.append(share)
        if share > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.run(stop)
    again = pickle.loads(pickle.dumps(kept)).run(seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) == whole.looks, "no look is made twice"
    assert [again.said_at(at_s) for at_s in range(0, len(rate), 900)] == [
        whole.said_at(at_s) for at_s in range(0, len(rate), 900)
    ]


def test_steps_are_those_of_the_clock_and_a_part_of_one_is_left_out() -> None:
    counts = counts_of(trace(np.full(2000, 2.0)), None, 1_000_000_100.0, 600.0)
    assert counts.start_s == 1_000_000_200.0
    np.testing.assert_allclose(counts.arrivals, [1200.0, 1200.0, 1200.0])
    np.testing.assert_allclose(counts.input_tokens, 120_000.0)
    np.testing.assert_allclose(counts.output_tokens, 1200 * 40.0, rtol=0.02)
    assert not len(counts_of(trace(np.ones(500)), None, 1_000_000_100.0, 600.0).arrivals)


def test_single_requests_bring_their_own_answers() -> None:
    requests = Requests(np.array([1.0, 700.0]), np.array([10, 20]), np.array([5, 900]), 1200.0)
    counts = counts_of(per_second(requests), requests, 0.0, 600.0)
    np.testing.assert_allclose(counts.output_tokens, [5.0, 900.0])
    np.testing.assert_allclose(counts.input_tokens, [10.0, 20.0])


@pytest.mark.parametrize(
    ("from_s", "to_s", "expected"),
    [
        (1000, 1030, [0, 1, 2]),
        (980, 1010, [None, None, 0]),
        (1020, 1050, [2, None, None]),
        (900, 920, [None, None]),
        (1100, 1120, [None, None]),
        (990, 1040, [None, 0, 1, 2, None]),
    ],
)
def test_steps_that_nobody_counted_are_gaps(from_s: float, to_s: float, expected: list[float | None]) -> None:
    columns = [np.arange(3.0) for _ in range(4)]
    between = Counts(1000.0, 10.0, *columns).between(from_s, to_s)
    assert (between.start_s, between.end_s) == (from_s, to_s)
    for column in between.columns:
        assert [None if np.isnan(value) else value for value in column] == expected
