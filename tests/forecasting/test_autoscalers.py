"""The peers' algorithms by the numbers of their documentation."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.policy import Bounds, PolicySettings
from forecasting.profile import LLAMA_8B_H100
from forecasting.simulator.arrivals import SecondArrivals, lengths_of
from forecasting.simulator.autoscalers.common import Highest, Sizing, whole
from forecasting.simulator.autoscalers.headroom import Hourly, Persistence, Seasonal, Static
from forecasting.simulator.autoscalers.kubernetes import Hpa, Keda, Kpa
from forecasting.simulator.autoscalers.ours import Foretide, GrowthForecasts, PerfectForecasts, capacity_for, load_of
from forecasting.simulator.autoscalers.serving import (
    AibrixApa,
    AibrixKpa,
    DynamoPlanner,
    Predictor,
    WvaQueueModel,
    forecast_next,
)
from forecasting.simulator.record import Record, record_of
from forecasting.simulator.view import Scrape, View
from forecasting.simulator.world import Slo

SIZING = Sizing(10.0, 2000.0, 0.5, 100.0, 0.4, 200.0, 100.0)
LENGTHS = lengths_of(np.full(100, 200.0), np.full(100, 100.0))


def view(
    now_s: float = 300.0,
    *,
    current: int = 4,
    ready: int | None = None,
    running: float = 0.0,
    waiting: float = 0.0,
    kv: float = 0.0,
    rate: float = 0.0,
) -> View:
    """Five minutes of the same scrapes, the newest one 15 s old."""
    times = np.arange(now_s - 300, now_s - 14, 15.0)
    ready = current if ready is None else ready
    scrapes = [Scrape(at, rate * at, 200 * rate * at, 100 * rate * at, 0, running, waiting, kv, ready) for at in times]
    return View(now_s, current, ready, scrapes)


def recorded(per_second: float, hours: float = 2.0, *, past_hours: float = 0.0) -> Record:
    def flat(length_h: float) -> SecondArrivals:
        counts = np.full(int(length_h * 3600), per_second)
        return SecondArrivals(counts, 200 * counts, LENGTHS)

    return record_of(flat(past_hours) if past_hours else None, flat(hours), 15.0)


@pytest.mark.parametrize(
    ("kv", "wish"), [(0.5, 4), (0.54, 4), (0.75, 6), (0.2, 4), (2.0, 8)], ids=["at", "tolerance", "up", "down", "most"]
)
def test_the_hpa_follows_the_ratio_beyond_its_tolerance(kv: float, wish: int) -> None:
    hpa = Hpa("KV use", 0.5)
    hpa.desired(view(kv=0.5))
    assert hpa.desired(view(315.0, kv=kv)) == wish  # 300 s of down-stabilisation hold the 4


def test_the_hpa_goes_down_when_the_window_has_passed() -> None:
    hpa = Hpa("KV use", 0.5)
    hpa.desired(view(kv=0.5))
    assert hpa.desired(view(601.0, kv=0.25)) == 2


def test_the_hpa_on_the_queue_divides_by_ready_replicas() -> None:
    assert Hpa("queue", 5.0).desired(view(waiting=30)) == 6


def test_keda_counts_what_waits_over_its_threshold() -> None:
    assert Keda(5.0, False).desired(view(waiting=30)) == 6
    assert Keda(5.0, True).desired(view(waiting=10, running=25)) == 7


def test_the_kpa_panics_at_twice_the_ready_replicas_and_never_falls_in_panic() -> None:
    kpa = Kpa(10.0)
    assert kpa.desired(view(running=80)) == 8
    assert kpa.desired(view(315.0, running=10, current=8, ready=4)) == 8  # still in panic
    assert kpa.desired(view(400.0, running=10, current=8, ready=8)) == 4  # halves at most


def test_the_kpa_of_aibrix_panics_on_the_ratio_of_its_windows() -> None:
    calm = view(running=40)
    burst = calm.scrapes[-1]._replace(running=200.0)
    kpa = AibrixKpa(10.0)
    assert kpa.desired(calm) == 4
    assert kpa.desired(View(315.0, 4, 4, [*calm.scrapes, burst])) == 20


def test_the_apa_of_aibrix_has_tolerance_and_capped_rates() -> None:
    assert AibrixApa(0.5).desired(view(kv=0.54)) == 4
    assert AibrixApa(0.5).desired(view(kv=0.8)) == 7
    assert AibrixApa(0.2).desired(view(kv=1.0)) == 8


@pytest.mark.parametrize("predictor", Predictor)
def test_every_predictor_of_the_planner_goes_on_with_a_constant_load(predictor: Predictor) -> None:
    assert forecast_next(predictor, np.full(1200, 50.0), 180) == pytest.approx(50.0, rel=0.01)


@pytest.mark.parametrize("predictor", [Predictor.KALMAN, Predictor.ARIMA])
def test_predictors_with_a_trend_go_on_with_it(predictor: Predictor) -> None:
    assert forecast_next(predictor, np.arange(100.0, 200.0), 180) == pytest.approx(200.0, rel=0.01)


def test_the_planner_divides_the_forecast_by_the_best_rate_every_180_s() -> None:
    planner = DynamoPlanner(SIZING, recorded(40.0), Predictor.CONSTANT, 1.0, False)
    work = 40 * (100 + 0.5 * 200)
    assert planner.desired(view(3600.0)) == whole(work / SIZING.work_per_s)


def test_the_fast_loop_of_the_planner_only_adds() -> None:
    planner = DynamoPlanner(SIZING, recorded(40.0), Predictor.CONSTANT, 1.0, True)
    assert planner.desired(view(3615.0, running=600)) == 6
    assert planner.desired(view(3630.0, running=10)) == 4


def test_the_queue_model_takes_more_replicas_for_more_requests() -> None:
    slow, fast = (
        WvaQueueModel(SIZING, LLAMA_8B_H100, Slo(), 1.0, 60, 300).desired(view(rate=rate)) for rate in (20, 200)
    )
    assert 1 <= slow < fast


def test_persistence_sizes_for_the_present_rate_and_headroom() -> None:
    assert Persistence(SIZING, 1.0, 60, 300).desired(view(rate=40)) == 4
    assert Persistence(SIZING, 1.3, 60, 300).desired(view(rate=40)) == 6


def test_the_seasonal_baseline_looks_a_day_back() -> None:
    record = recorded(40.0, past_hours=24.0)
    assert Seasonal(SIZING, record, 1.0, 180.0).desired(view(3600.0)) == 4


def test_the_hourly_baseline_knows_the_same_hour_of_the_days_before() -> None:
    record = recorded(80.0, past_hours=48.0)
    assert Hourly(SIZING, record, 1.0, 300.0, 7, 300.0).desired(view(3600.0, rate=10)) == 8


def test_static_is_static() -> None:
    assert Static(7).desired(view()) == 7


def test_without_a_scrape_everybody_keeps_what_is_there() -> None:
    nothing = View(0.0, 3, 3, [])
    record = recorded(1.0)
    for each in (
        Hpa("KV use", 0.5),
        Keda(1.0, True),
        Kpa(1.0),
        AibrixKpa(1.0),
        AibrixApa(0.5),
        Persistence(SIZING, 1.0, 60, 60),
        WvaQueueModel(SIZING, LLAMA_8B_H100, Slo(), 1.0, 60, 60),
        DynamoPlanner(SIZING, record, Predictor.CONSTANT, 1.0, True),
        Seasonal(SIZING, record, 1.0, 60.0),
    ):
        assert each.desired(nothing) == 3, each.name


def test_the_highest_of_a_window_is_forgotten_after_it() -> None:
    highest = Highest(60.0)
    assert [highest.of(at, value) for at, value in ((0, 5), (30, 3), (60, 2), (61, 2), (91, 1))] == [5, 5, 5, 3, 2]


def test_forecasts_read_nothing_that_is_not_measured_yet() -> None:
    calm, storm = recorded(40.0, 6.0), recorded(40.0, 6.0)
    storm.requests[1000:] = storm.inputs[1000:] = storm.outputs[1000:] = 1e6
    now_s = 1000 * 15.0
    one, two = (GrowthForecasts(each, 0.5, 240.0).at(now_s) for each in (calm, storm))
    assert one is not None
    assert two is not None
    # The scale of an empty load is learned from the whole record's first step only.
    assert one.values == two.values


def test_the_perfect_forecast_is_the_load_that_comes() -> None:
    found = PerfectForecasts(recorded(40.0), 0.5, 240.0).at(1234.0)
    assert found is not None
    assert {value for row in found.values for value in row} == {40 * (100 + 0.5 * 200)}


def test_our_policy_decides_in_the_simulation_as_in_the_operator() -> None:
    ours = Foretide("ours", Bounds(1, 20), capacity_for(SIZING), PolicySettings(), None, 240.0)
    assert ours.desired(view(rate=80)) == 8
    assert ours.last is not None
    assert ours.last.message == "8 replicas: load 16k tok/s now ÷ 2k tok/s each"
    assert load_of(View(0.0, 1, 1, [])) is None
