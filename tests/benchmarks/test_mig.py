"""The benchmark of the planner: its peers obey the rules of their papers, and its fleet never holds what cannot be."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from benchmarks.mig.bounds import (
    IN_ORDER,
    METRIC,
    best_worth,
    bound_row,
    bounds_of,
    most_served,
    most_slices,
    out_of_reach,
    with_bounds,
)
from benchmarks.mig.demand import from_rates, random_rates, random_services
from benchmarks.mig.fleet import Fleet, slices
from benchmarks.mig.nodes import timed_plan
from benchmarks.mig.peers import PEERS, Placer, best_fit, first_fit, minimum_fragmentation
from benchmarks.mig.run import run_peer, run_planned
from benchmarks.report import Better, Report, Row
from controllers.plans.mig.demand import PlanSettings
from controllers.plans.mig.geometry import WHOLE_GPU, family

H100 = family("H100-80")


def starts(fleet: Fleet) -> list[list[tuple[str, int]]]:
    return [[(place.profile.name, place.start) for place, _ in gpu.used] for gpu in fleet.gpus]


def test_first_fit_takes_the_first_gpu_and_the_first_start() -> None:
    placer = Placer(Fleet.empty(H100, 2), first_fit)
    for profile in ("1g.10gb", "4g.40gb", "3g.40gb"):
        assert placer.place(profile, 0)
    assert starts(placer.fleet) == [[("1g.10gb", 0), ("3g.40gb", 4)], [("4g.40gb", 0)]]


def test_best_fit_takes_the_fullest_gpu_and_keeps_the_places_of_larger_profiles() -> None:
    placer = Placer(Fleet.empty(H100, 2), best_fit)
    for profile in ("4g.40gb", "1g.10gb", "1g.10gb"):
        assert placer.place(profile, 0)
    assert starts(placer.fleet)[0][0] == ("4g.40gb", 0)
    assert starts(placer.fleet)[1] == []
    fresh = Placer(Fleet.empty(H100, 1), best_fit)
    fresh.place("1g.10gb", 0)
    assert starts(fresh.fleet) == [[("1g.10gb", 6)]]


def test_minimum_fragmentation_increment_does_not_spoil_the_start_of_4g() -> None:
    placer = Placer(Fleet.empty(H100, 1), minimum_fragmentation)
    assert placer.place("1g.10gb", 0)
    assert placer.place("4g.40gb", 0)


def test_no_heuristic_places_what_does_not_fit() -> None:
    for rule in PEERS.values():
        placer = Placer(Fleet.empty(H100, 1), rule)
        assert placer.place("7g.80gb", 0)
        assert not placer.place("1g.10gb", 0)
        whole = Placer(Fleet.empty(H100, 1), rule)
        assert whole.place(WHOLE_GPU, 0)
        assert not whole.place("1g.10gb", 0)


def test_a_worker_that_ends_makes_room() -> None:
    placer = Placer(Fleet.empty(H100, 1), first_fit)
    placer.place("7g.80gb", 2)
    placer.changed(placer.fleet.take(("7g.80gb", 2), random.Random(0)))
    assert placer.fleet.held() == Counter()
    assert placer.place("4g.40gb", 0)


def test_every_policy_lives_through_a_small_workload_and_the_planner_serves_most_of_p0() -> None:
    kinds = random_services(random.Random(1), [1.0] * 6, 30)
    workload = from_rates("w", kinds, random_rates(np.random.default_rng(1), 30, 26), 20, 1.3)
    peers = [run_peer(H100, 20, workload, rule, 1) for rule in PEERS.values()]
    ours = run_planned(H100, 20, workload, PlanSettings(whole_gpus=False), 1, lambda line: None)
    assert all(0 < one.share < 1 for one in [*peers, ours])
    assert ours.urgent_share > max(one.urgent_share for one in peers)
    assert max(ours.gaps) < 1e-3
    assert most_served(H100, 20, workload) > max(one.share for one in [*peers, ours])


def test_one_gpu_serves_what_its_best_layout_holds() -> None:
    assert most_slices(H100, 1, Counter({("7g.80gb", 0): 1, ("1g.10gb", 0): 3})) == 7
    assert most_slices(H100, 1, Counter({("3g.40gb", 0): 2})) == 6
    assert most_slices(H100, 1, Counter({("1g.20gb", 0): 9})) == 4, "memory ends before compute"


def test_where_important_classes_come_first_no_more_is_served_than_they_leave() -> None:
    demand = Counter({("3g.40gb", 0): 2, ("7g.80gb", 3): 1})
    worth = best_worth(H100, 1, demand)
    assert worth == pytest.approx(6 * 512)
    assert most_slices(H100, 1, demand) == 7
    assert most_slices(H100, 1, demand, worth) == pytest.approx(6, rel=1e-3)


def test_only_a_workload_of_several_classes_has_a_bound_for_their_order() -> None:
    plain = from_rates("plain", [("1g.10gb", 1)], np.ones((1, 21)), 1, 1.0)
    mixed = from_rates("mixed", [("3g.40gb", 0), ("7g.80gb", 3)], np.ones((2, 21)), 2, 1.5)
    assert [row.metric for row in bounds_of(H100, 1, plain)] == [METRIC]
    most, in_order = bounds_of(H100, 2, mixed)
    assert (most.metric, in_order.metric) == (METRIC, IN_ORDER)
    assert (in_order.ours or 0) <= (most.ours or 0)


def test_a_goal_beyond_the_bound_is_named_and_an_old_bound_is_replaced() -> None:
    def served(workload: str, goal: float) -> Row:
        return Row(workload, "demand served", "share", 0.9, 0.85, "best fit", goal, Better.HIGHER)

    workload = from_rates("near", [("1g.10gb", 0)], np.ones((1, 21)), 1, 1.0)
    bound = bound_row(workload, 0.92)
    old = Report("m", "c", "d", (served("near", 0.935), bound_row(workload, 0.5), served("far", 0.935)))
    new = with_bounds(old, [bound])
    assert [row.metric for row in new.rows] == ["demand served", METRIC, "demand served"]
    assert out_of_reach(new.rows) == ["near: at most 0.920, which is 8.2% more than best fit's 0.850"]


def test_demand_has_the_load_that_it_was_asked_for() -> None:
    kinds = random_services(random.Random(1), [1.0] * 6, 200)
    workload = from_rates("w", kinds, random_rates(np.random.default_rng(1), 200, 60), 1000, 1.2)
    mean = sum(slices(step) for step in workload.steps) / len(workload.steps)
    assert abs(mean / 7000 - 1.2) < 0.03


def test_a_plan_of_nodes_is_timed_with_its_gap() -> None:
    timed = timed_plan(H100, 5, 8, 1.5, 0.5, seed=1)
    assert timed.cpu_s > 0
    assert timed.plan.gap < 1e-3
