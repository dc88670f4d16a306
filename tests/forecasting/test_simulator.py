"""The exact simulation against what must hold: conservation, queueing theory, monotonicity, cold starts, draining."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from forecasting.errors import BadSetting
from forecasting.profile import LLAMA_8B_H100, Profile
from forecasting.simulator.autoscalers.headroom import Static
from forecasting.simulator.events import EventFleet
from forecasting.simulator.outcome import met, worst_of
from forecasting.simulator.replay import replay
from forecasting.simulator.requests import Requests
from forecasting.simulator.view import View
from forecasting.simulator.world import ColdStart, World


def poisson(rate: float, duration_s: float, *, seed: int = 0, inputs: int = 1000, outputs: int = 100) -> Requests:
    random = np.random.default_rng(seed)
    n = random.poisson(rate * duration_s)
    return Requests(
        np.sort(random.uniform(0, duration_s, n)),
        random.integers(1, 2 * inputs, n),
        random.integers(1, 2 * outputs, n),
        duration_s,
    )


class Steps:
    """Asks for given numbers at given times."""

    name = "steps"
    period_s = 15

    def __init__(self, steps: dict[float, int]) -> None:
        self._steps = steps

    def desired(self, view: View) -> int:
        return max((at, n) for at, n in self._steps.items() if at <= view.now_s)[1]


def test_every_request_is_done_or_in_flight_at_any_time() -> None:
    requests = poisson(40, 120)
    fleet = EventFleet(World(), requests, 3, seed=0)
    for now_s in np.arange(7.0, 200.0, 7.0):
        fleet.run_until(float(now_s))
        if now_s == 63.0:
            fleet.resize(6)
        if now_s == 105.0:
            fleet.resize(2)
        came = int((requests.arrival_s <= now_s).sum())
        scrape = fleet.scrape()
        assert scrape.requests_total == came
        assert fleet.finished_total + scrape.running + scrape.waiting == came
    assert fleet.finished_total == len(requests)


@pytest.mark.parametrize(("seats", "load"), [(1, 0.6), (4, 0.8)])
def test_a_replica_with_seats_and_random_service_waits_like_m_m_c(seats: int, load: float) -> None:
    # Iterations of constant length and geometric answers on `seats` seats: an M/M/c queue.
    service_s, n = 0.1, 30_000
    profile = Profile("toy", "toy", 1e-3, 1e-12, 0.0, 1e-9, 0.0, 10**9, seats, seats + 1)
    random = np.random.default_rng(5)
    arrival_s = np.cumsum(random.exponential(service_s / seats / load, n))
    outputs = random.geometric(1e-3 / service_s, n)
    requests = Requests(arrival_s, np.ones(n, dtype=np.int64), outputs, float(arrival_s[-1]))
    fleet = EventFleet(World(profile=profile), requests, 1, seed=0)
    fleet.run_until(requests.duration_s + 100)
    mean_stay_s = float(np.mean(np.array(fleet.done_s) - requests.arrival_s))
    assert mean_stay_s == pytest.approx(service_s + erlang_c(seats, load) * service_s / seats / (1 - load), rel=0.1)


def erlang_c(servers: int, load: float) -> float:
    """Probability to wait in an M/M/c queue (Erlang 1917)."""
    offered = servers * load
    last = offered**servers / math.factorial(servers) / (1 - load)
    return last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)


def test_more_replicas_never_lower_the_attainment() -> None:
    requests = poisson(60, 90)
    attained = [replay(requests, World(), Static(n), replicas=n).outcome.attainment for n in (2, 3, 4, 6, 8)]
    assert attained == sorted(attained)
    assert attained[0] < 0.9
    assert attained[-1] > 0.99


def test_the_same_seed_gives_the_same_run_and_the_same_cold_starts_to_everybody() -> None:
    requests = poisson(30, 200)
    world = World(cold_start=ColdStart(60.0, warm_share=0.5))
    one, two = (replay(requests, world, Steps({0: 2, 60: 4}), replicas=2, seed=7) for _ in range(2))
    assert one.outcome == two.outcome
    assert np.array_equal(one.done_s, two.done_s)
    assert world.cold_start.draw_s(7, 0) != world.cold_start.draw_s(7, 1)
    assert world.cold_start.draw_s(7, 0) != world.cold_start.draw_s(8, 0)


def test_a_new_replica_serves_only_after_its_cold_start_and_costs_from_the_first_second() -> None:
    requests = poisson(1, 300)
    world = World(cold_start=ColdStart(100.0, spread=0.0))
    done = replay(requests, world, Steps({0: 1, 30: 2}), replicas=1)
    ready = {moment.at_s: moment.ready for moment in done.course}
    assert ready[120.0] == 1
    assert ready[135.0] == 2
    assert done.outcome.gpu_hours == pytest.approx((300 + 270) / 3600)


def test_a_draining_replica_ends_its_requests_and_takes_no_new_ones() -> None:
    requests = poisson(20, 120, outputs=300)
    done = replay(requests, World(), Steps({0: 3, 60: 1}), replicas=3)
    assert done.outcome.finished == len(requests)
    assert done.outcome.gpu_hours > (3 * 60 + 1 * 60) / 3600


def test_a_drain_is_cut_off_at_its_cap_and_its_requests_begin_anew() -> None:
    requests = Requests(np.array([0.0, 0.0]), np.array([100, 100]), np.array([60_000, 60_000]), 1200.0)
    world = World(drain_cap_s=30.0)
    fleet = EventFleet(world, requests, 2, seed=0)
    fleet.run_until(10.0)
    fleet.resize(1)
    fleet.run_until(45.0)
    assert fleet.scrape().running + fleet.scrape().waiting == 2
    fleet.run_until(1200.0)
    assert fleet.finished_total == 2
    assert fleet.gpu_seconds(1200.0) == pytest.approx(1200 + 40)


def test_without_a_replica_requests_wait_in_the_gateway_and_are_served_later() -> None:
    requests = poisson(2, 30)
    world = World(cold_start=ColdStart(20.0, spread=0.0), min_replicas=0)
    done = replay(requests, world, Steps({0: 0, 15: 1}), replicas=0)
    assert done.outcome.finished == len(requests)
    assert done.outcome.ttft_p99_s is not None
    assert done.outcome.ttft_p99_s > 20


def test_a_request_that_no_replica_can_hold_is_refused_and_counts_as_missed() -> None:
    requests = Requests(np.array([0.0, 1.0]), np.array([500_000, 100]), np.array([10, 10]), 10.0)
    done = replay(requests, World(), Static(1), replicas=1)
    assert done.refused == 1
    assert done.outcome.attainment == 0.5


def test_requests_that_never_end_are_missed_and_have_no_percentile() -> None:
    requests = poisson(60, 200)
    done = replay(requests, replace(World(), min_replicas=0), Static(0), replicas=0)
    assert done.outcome.attainment == 0
    assert done.outcome.ttft_p99_s is None


@pytest.mark.parametrize("days", [1, 7, 14])
def test_the_worst_ten_minutes_count_however_long_the_trace_is(days: int) -> None:
    """Those of a quiet night are no busier than a twentieth of the mean, and say little."""
    count = np.full(144 * days, 1000.0)
    count[:3] = 300.0, 50.0, 0.0
    good = count.copy()
    good[0], good[1] = 30.0, 0.0
    assert worst_of(count, good) == pytest.approx(0.1)
    assert worst_of(count, np.zeros_like(count)) == 0.0
    assert worst_of(np.zeros(3), np.zeros(3)) == worst_of(np.zeros(0), np.zeros(0)) == 1.0


def test_a_controller_sees_nothing_younger_than_the_lag() -> None:
    seen: list[float] = []

    class Watcher(Static):
        def desired(self, view: View) -> int:
            seen.extend(view.now_s - each.at_s for each in view.scrapes)
            return super().desired(view)

    replay(poisson(5, 120), World(), Watcher(1), replicas=1)
    assert min(seen) == 15.0


def test_a_scrape_counts_the_finished_requests_and_those_that_met_both_targets() -> None:
    requests = poisson(30, 120)
    fleet = EventFleet(World(), requests, 1, seed=0)
    fleet.run_until(100.0)
    scrape = fleet.scrape()
    good = met(requests, np.array(fleet.first_s), np.array(fleet.done_s), World().slo)
    assert scrape.judged_total == scrape.finished_total > 0
    assert scrape.good_total == int(good.sum())
    assert 0 < scrape.good_total < scrape.judged_total, "some were late"


def test_requests_out_of_order_or_without_tokens_are_refused() -> None:
    with pytest.raises(BadSetting, match="sort them"):
        Requests(np.array([1.0, 0.5]), np.array([1, 1]), np.array([1, 1]), 2.0)
    with pytest.raises(BadSetting, match="at least one input"):
        Requests(np.array([1.0]), np.array([0]), np.array([1]), 2.0)
    with pytest.raises(BadSetting, match="lasts 1 s"):
        Requests(np.array([1.5]), np.array([1]), np.array([1]), 1.0)


def test_thinning_keeps_times_and_about_the_share() -> None:
    requests = poisson(50, 400)
    thinned = requests.thinned(0.3, seed=1)
    assert len(thinned) / len(requests) == pytest.approx(0.3, abs=0.02)
    assert np.isin(thinned.arrival_s, requests.arrival_s).all()
    assert thinned.duration_s == requests.duration_s


def test_the_profile_of_the_study_is_what_was_agreed() -> None:
    assert LLAMA_8B_H100.iteration_s(0, 2048, 0) == pytest.approx(0.033e-3 * 2048)
    assert LLAMA_8B_H100.iteration_s(10, 0, 100_000) == pytest.approx(7e-3 + 39e-9 * 100_000 + 0.15e-3)
    assert math.isclose(LLAMA_8B_H100.iteration_s(0, 1, 0, 1), 15e-3)
