"""The mix of reserved, spot and on-demand replicas."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from forecasting.cost import Mix, Prices, mix
from forecasting.errors import BadSetting


def test_what_is_always_there_is_reserved_and_the_peak_is_bought_by_the_hour() -> None:
    plan = [4.0] * 20 + [8.0] * 4  # the upper four are used for a sixth of the time
    chosen = mix(plan, 3600, Prices(spot=2.0))
    assert (chosen.reserved, chosen.spot, chosen.on_demand) == (4, 0, 4)
    assert chosen.cost == pytest.approx(24 * 4 * 0.6 + 4 * 4 * 1.0)
    assert chosen.all_on_demand == pytest.approx(24 * 4 + 16)
    assert "pays when used over 60% of the time: 0.6 ÷ 1" in chosen.message


def test_spot_takes_the_part_that_may_be_lost() -> None:
    chosen = mix([8.0] * 24, 3600, Prices(), most_lost_share=0.25)
    assert (chosen.reserved, chosen.spot, chosen.on_demand) == (6, 2, 0)


def test_spot_that_is_interrupted_too_often_is_not_bought() -> None:
    assert mix([8.0] * 24, 3600, Prices(interruptions_per_hour=10.0)).spot == 0


def test_without_risk_aversion_everything_is_spot() -> None:
    assert mix([8.0] * 24, 3600, Prices(), most_lost_share=1.0).spot == 8


@given(some.lists(some.integers(0, 9), min_size=1, max_size=30), some.floats(0.1, 0.9))
@settings(max_examples=100, deadline=None)
def test_no_split_of_the_layers_is_cheaper(plan: list[int], share: float) -> None:
    prices = Prices()
    chosen = mix([float(n) for n in plan], 3600, prices, most_lost_share=share)
    layers = max(plan)
    for reserved, spot in itertools.product(range(layers + 1), repeat=2):
        if reserved + spot <= layers and spot <= reserved * share / (1 - share):
            assert chosen.cost <= spent(plan, reserved, spot, prices) + 1e-9
    assert chosen.cost == pytest.approx(spent(plan, chosen.reserved, chosen.spot, prices))


def spent(plan: list[int], reserved: int, spot: int, prices: Prices) -> float:
    total = 0.0
    for n in plan:
        above = max(n - reserved, 0)
        total += reserved * prices.reserved
        total += min(above, spot) * prices.spot_with_risk + max(above - spot, 0) * prices.on_demand
    return total


def test_the_saving_is_against_everything_on_demand() -> None:
    assert Mix(1, 0, 0, 6.0, 10.0, "").saving == pytest.approx(0.4)


def test_a_plan_without_steps_and_prices_below_zero_are_refused() -> None:
    with pytest.raises(BadSetting, match="at least one step"):
        mix([], 60, Prices())
    with pytest.raises(BadSetting, match="negative"):
        Prices(spot=-1)
