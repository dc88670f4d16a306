"""The objective and its constraints, as arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_image.engine.scheduler.objective import Served, cost, jain

GOOD = [Served(0.4, 1.0), Served(0.8, 1.0)]


def test_the_cost_is_the_squares_of_the_ratios_and_their_variance() -> None:
    assert cost(GOOD, 0.0) == pytest.approx(0.16 + 0.64)
    assert cost(GOOD, 2.0) == pytest.approx(0.8 + 2 * 0.04)
    assert cost([]) == 0.0


@given(st.lists(st.floats(1e-3, 1e6) | st.just(0.0), min_size=1, max_size=20))
def test_jains_index_lies_between_one_nth_and_one(shares: list[float]) -> None:
    assert 1 / len(shares) - 1e-9 <= jain(shares) <= 1 + 1e-9


def test_jains_index_of_equals_is_one_and_of_a_monopoly_one_nth() -> None:
    assert jain([3.0] * 5) == pytest.approx(1.0)
    assert jain([7.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain([]) == jain([0.0, 0.0]) == 1.0
