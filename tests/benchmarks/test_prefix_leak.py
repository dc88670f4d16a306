"""The score of the timing attack: what a classifier makes of times, and how sure that is."""

from __future__ import annotations

import random

import pytest

from benchmarks.prefix_leak.__main__ import ATTACKS, rows
from benchmarks.prefix_leak.attack import Times
from benchmarks.prefix_leak.scores import auc


def times(seed: int, n: int, gain_s: float = 0.0) -> Times:
    rng = random.Random(seed)
    return Times([rng.gauss(0.1, 0.02) - gain_s for _ in range(n)], [rng.gauss(0.1, 0.02) for _ in range(n)])


def test_times_of_one_kind_give_chance_and_the_interval_holds_it() -> None:
    inside = 0
    for seed in range(100):
        made = times(seed, 100)
        score = auc(made.warmed_s, made.others_s)
        assert abs(score.value - 0.5) < 0.2
        inside += score.low <= 0.5 <= score.high
    assert inside >= 88, "of intervals of 95 % confidence"


def test_times_that_are_apart_give_certainty_and_ties_count_half() -> None:
    assert auc([1.0, 2.0], [3.0, 4.0]).value == 1.0
    assert auc([3.0, 4.0], [1.0, 2.0]).value == 0.0
    assert auc([1.0, 1.0], [1.0, 1.0]).value == 0.5
    with pytest.raises(ValueError, match="two probes of each kind"):
        auc([1.0], [1.0, 2.0])


def test_a_leak_with_salts_misses_the_goal_and_so_does_a_control_without_one() -> None:
    good = rows({name: times(1, 400) for name in ATTACKS}, {name: times(2, 400, 0.1) for name in ATTACKS})
    assert all(row.met is not False for row in good)
    leaking = rows({name: times(1, 400, 0.1) for name in ATTACKS}, {name: times(2, 400) for name in ATTACKS})
    assert sum(row.met is False for row in leaking) == 2 * len(ATTACKS)
