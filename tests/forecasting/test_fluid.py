"""The fluid mode against the exact simulation, and against what must hold of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from forecasting.capacity import capacity_of
from forecasting.errors import BadSetting
from forecasting.policy import Bounds, Capacity, Policy, PolicySettings
from forecasting.profile import LLAMA_8B_H100
from forecasting.simulator.arrivals import SecondArrivals, lengths_of, per_second
from forecasting.simulator.autoscalers.common import Sizing
from forecasting.simulator.autoscalers.headroom import Persistence, Static
from forecasting.simulator.autoscalers.ours import Foretide
from forecasting.simulator.many import Batch, Run
from forecasting.simulator.oracle import clairvoyant, filled, lower_bound_gpu_hours, pruned
from forecasting.simulator.replay import replay
from forecasting.simulator.requests import Requests
from forecasting.simulator.view import View
from forecasting.simulator.world import ColdStart, Slo, World

AGREES_WITHIN = 0.02


def wave(mean_rate: float, duration_s: float, *, seed: int = 0, swing: float = 0.0) -> Requests:
    """Arrivals with a wave of ten minutes; lengths log-normal, like those of a chat."""
    random = np.random.default_rng(seed)
    seconds = np.arange(int(duration_s))
    rate = mean_rate * (1 + swing * np.sin(2 * np.pi * seconds / 600))
    whole_s = np.repeat(seconds, random.poisson(rate)).astype(np.float64)
    arrival_s = np.sort(whole_s + random.random(len(whole_s)))
    n = len(arrival_s)
    inputs = np.clip(random.lognormal(6.7, 0.8, n), 16, 8000).astype(np.int64)
    outputs = np.clip(random.lognormal(4.9, 0.9, n), 2, 1000).astype(np.int64)
    return Requests(np.minimum(arrival_s, duration_s), inputs, outputs, duration_s)


def sizing(arrivals: SecondArrivals) -> Sizing:
    one = capacity_of(LLAMA_8B_H100, arrivals.lengths, Slo())
    return Sizing(
        one.requests_per_s,
        one.work_per_s,
        one.input_weight,
        one.running,
        one.kv_use,
        arrivals.lengths.mean_input,
        arrivals.lengths.decode + 1,
    )


@pytest.mark.parametrize("load", [0.6, 0.85, 0.95])
def test_the_fluid_agrees_with_the_exact_simulation_under_steady_load(load: float) -> None:
    replicas = 5
    rate = sizing(per_second(wave(20, 60))).requests_per_s * replicas * load
    requests = wave(rate, 240, seed=2)
    exact = replay(requests, World(), Static(replicas), replicas=replicas).outcome
    fluid = Batch([Run(World(), Static(replicas), 0, replicas)], [per_second(requests)]).run()[0]
    assert fluid.attainment == pytest.approx(exact.attainment, abs=AGREES_WITHIN)
    assert fluid.gpu_hours == pytest.approx(exact.gpu_hours, rel=AGREES_WITHIN)


def test_the_fluid_agrees_with_the_exact_simulation_when_an_autoscaler_follows_a_wave() -> None:
    requests = wave(30, 900, seed=3, swing=0.5)
    arrivals = per_second(requests)
    world = World(cold_start=ColdStart(45.0))
    size = sizing(arrivals)

    def follower() -> Persistence:
        return Persistence(size, 1.25, 60.0, 120.0)

    exact = replay(requests, world, follower(), replicas=4).outcome
    fluid = Batch([Run(world, follower(), 0, 4)], [arrivals]).run()[0]
    assert fluid.attainment == pytest.approx(exact.attainment, abs=AGREES_WITHIN)
    assert fluid.gpu_hours == pytest.approx(exact.gpu_hours, rel=AGREES_WITHIN)


def test_what_replicas_hold_makes_up_for_a_capacity_that_is_overstated() -> None:
    arrivals = per_second(wave(70.0, 2400.0))
    size = sizing(arrivals)
    told = Capacity(1.3 * size.work_per_s, size.running, 0.8, size.input_weight)
    by_rate_alone = replace(told, running=1e9, kv_use=1e9)
    world, settings = World(cold_start=ColdStart(120.0)), PolicySettings(policy=Policy.REACTIVE)
    runs = [
        Run(world, Foretide("ours", Bounds(1, 30), each, settings, None, 300.0), 0, 5) for each in (told, by_rate_alone)
    ]
    floor, rate = Batch(runs, [arrivals]).run()
    assert floor.attainment > 0.75
    assert rate.attainment < 0.65
    assert floor.mean_replicas > rate.mean_replicas


def test_runs_side_by_side_do_not_touch_each_other() -> None:
    arrivals = [per_second(wave(40, 300, seed=seed, swing=0.4)) for seed in (0, 1)]
    size = sizing(arrivals[0])

    def runs() -> list[Run]:
        world = World(cold_start=ColdStart(60.0))
        return [Run(world, Persistence(size, h, 60.0, 60.0), s, 3, s) for h in (1.0, 1.3) for s in (0, 1)]

    together = Batch(runs(), arrivals).run()
    alone = [Batch([run], arrivals).run()[0] for run in runs()]
    assert [each.attainment for each in together] == pytest.approx([each.attainment for each in alone])
    assert [each.gpu_hours for each in together] == pytest.approx([each.gpu_hours for each in alone])


def test_a_scrape_counts_every_request_that_came_and_those_that_met_both_targets() -> None:
    seen: list[tuple[float, float, float]] = []

    class Watcher(Static):
        def desired(self, view: View) -> int:
            seen.extend((one.judged_total, one.good_total, one.requests_total) for one in view.scrapes[-1:])
            return super().desired(view)

    arrivals = per_second(wave(70, 1200, swing=0.8))
    outcome = Batch([Run(World(), Watcher(4), 0, 4)], [arrivals]).run()[0]
    assert all(judged == pytest.approx(came) for judged, _, came in seen)
    judged, good, _ = seen[-1]
    assert 0 < good < judged, "some were late"
    assert good <= outcome.attainment * outcome.requests <= good + outcome.requests - judged


def test_no_request_is_lost_or_made() -> None:
    arrivals = per_second(wave(60, 200))
    nothing = np.zeros(400)
    counts, inputs = (np.concatenate([each, nothing]) for each in (arrivals.counts, arrivals.inputs))
    quiet = SecondArrivals(counts, inputs, arrivals.lengths)
    outcome = Batch([Run(World(), Static(4), 0, 4)], [quiet]).run()[0]
    assert outcome.finished == pytest.approx(outcome.requests, rel=1e-3)


def test_at_zero_cold_start_and_a_minute_of_patience_followers_converge_to_the_need() -> None:
    """All policies that follow the same rate with the same headroom spend the same when starting costs nothing."""
    arrivals = per_second(wave(60, 1800, swing=0.3))
    size = sizing(arrivals)
    world = World(cold_start=ColdStart(0.0, spread=0.0))
    spent = [
        Batch([Run(world, Persistence(size, 1.2, window_s, 15.0), 0, 5)], [arrivals]).run()[0]
        for window_s in (15.0, 30.0, 60.0)
    ]
    assert [each.gpu_hours for each in spent] == pytest.approx([spent[0].gpu_hours] * 3, rel=0.05)
    assert min(each.attainment for each in spent) > 0.98


def test_more_replicas_never_lower_the_attainment() -> None:
    arrivals = per_second(wave(60, 300))
    outcomes = Batch([Run(World(), Static(n), 0, n) for n in range(1, 9)], [arrivals]).run()
    attained = [each.attainment for each in outcomes]
    assert attained == sorted(attained)


def test_the_capacity_of_a_profile_holds_its_targets_and_a_tenth_more_does_not() -> None:
    arrivals = per_second(wave(20, 60))
    rate = sizing(arrivals).requests_per_s
    lengths = arrivals.lengths

    def attained(requests_per_s: float) -> float:
        steady = np.full(600, requests_per_s)
        whole = SecondArrivals(steady, steady * lengths.mean_input, lengths)
        return Batch([Run(World(), Static(1), 0, 1)], [whole]).run()[0].attainment

    assert attained(rate) >= 0.98
    assert attained(1.1 * rate) < 0.9


def test_the_clairvoyant_lies_between_the_lower_bound_and_the_baselines() -> None:
    arrivals = per_second(wave(60, 2400, swing=0.4))
    size = sizing(arrivals)
    world = World(cold_start=ColdStart(60.0), max_replicas=30)
    best = clairvoyant(arrivals, world, size.requests_per_s)
    assert best.attainment >= 0.99
    assert best.gpu_hours > lower_bound_gpu_hours(arrivals, size.requests_per_s, 1)
    followers = Batch([Run(world, Persistence(size, h, 60.0, 120.0), 0, 5) for h in (1.0, 1.2, 1.4, 1.6)], [arrivals])
    good = [each.gpu_hours for each in followers.run() if each.attainment >= 0.99]
    assert good
    assert best.gpu_hours < min(good)


def test_short_gaps_of_a_schedule_are_filled_and_short_peaks_pruned() -> None:
    schedule = np.array([2, 2, 1, 2, 2, 5, 2, 1, 1, 1, 2])
    assert filled(schedule, 1).tolist() == [2, 2, 2, 2, 2, 5, 2, 1, 1, 1, 2]
    assert filled(schedule, 3).tolist() == [2, 2, 2, 2, 2, 5, 2, 2, 2, 2, 2]
    assert pruned(schedule, 1, 1).tolist() == [2, 2, 1, 2, 2, 2, 2, 1, 1, 1, 1]


def test_runs_that_do_not_fit_together_are_refused() -> None:
    arrivals = per_second(wave(5, 60))
    with pytest.raises(BadSetting, match="at least one run"):
        Batch([], [arrivals])
    with pytest.raises(BadSetting, match="one profile and one SLO"):
        Batch([Run(World(), Static(1), 0, 1), Run(World(slo=Slo(ttft_s=0.5)), Static(1), 0, 1)], [arrivals])
    with pytest.raises(BadSetting, match="no request"):
        lengths_of(np.zeros(0), np.zeros(0))
