"""The objective and its constraints, as arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_image.engine.scheduler.objective import Served, broken, cost, jain, judge

GOOD = [Served(0.4, 1.0), Served(0.8, 1.0)]


def test_the_cost_is_the_squares_of_the_ratios_and_their_variance() -> None:
    assert cost(GOOD, 0.0) == pytest.approx(0.16 + 0.64)
    assert cost(GOOD, 2.0) == pytest.approx(0.8 + 2 * 0.04)
    assert cost([]) == 0.0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_jains_index_lies_between_one_nth_and_one(shares: list[float]) -> None:
    assert 1 / len(shares) - 1e-9 <= jain(shares) <= 1 + 1e-9


def test_jains_index_of_equals_is_one_and_of_a_monopoly_one_nth() -> None:
    assert jain([3.0] * 5) == pytest.approx(1.0)
    assert jain([7.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain([]) == jain([0.0, 0.0]) == 1.0


def test_the_first_broken_constraint_is_told_as_arithmetic() -> None:
    assert broken(GOOD, 0.8, 0.9) is None
    late = [*GOOD, Served(0.96, 1.0)]
    assert broken(late, 0.8, 0.9) == "1 of 3 delays are over 0.95 × SLA; the worst is 0.96 s of 1 s"
    assert broken(GOOD, 0.79, 0.9) == "utilisation 0.79 < 0.8"
    assert broken(GOOD, 0.8, 0.89) == "Jain index 0.89 < 0.9"
    assert judge(GOOD, 0.8, 0.89).reason == "Jain index 0.89 < 0.9"
