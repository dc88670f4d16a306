"""What a plan of replicas costs, and which part of it should be reserved, on demand or spot.

Each replica of a plan is a layer: the first is nearly always there, the last only at the peak. A layer is worth its
reservation when it is used for more of the time than reserved ÷ on-demand price (the newsvendor's critical ratio); the
others are bought by the hour: on spot, where what interruptions cost on average leaves it cheaper and the part that may
be lost at once allows it, else on demand. All splits of that form are tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecasting.errors import BadSetting
from forecasting.series import Array as Floats


@dataclass(frozen=True, slots=True)
class Prices:
    """Per GPU-hour, in any one currency. interruptions_per_hour: of one spot replica; reclaim_hours: GPU-hours that an
    interruption costs besides (the cold start of its successor, the work it had in flight)."""

    on_demand: float = 1.0
    reserved: float = 0.6
    spot: float = 0.35
    interruptions_per_hour: float = 0.05
    reclaim_hours: float = 0.1

    def __post_init__(self) -> None:
        values = (self.on_demand, self.reserved, self.spot, self.interruptions_per_hour, self.reclaim_hours)
        if not all(math.isfinite(value) and value >= 0 for value in values) or self.on_demand == 0:
            raise BadSetting(f"Prices: {values} hold a number that is negative, not finite, or a free on-demand hour.")

    @property
    def spot_with_risk(self) -> float:
        """A spot hour with what its interruptions cost on average, their successors bought on demand."""
        return self.spot + self.interruptions_per_hour * self.reclaim_hours * self.on_demand


@dataclass(frozen=True, slots=True)
class Mix:
    """Replicas of each kind; `spot` and `on_demand` are the most that are ever there. Costs are of the whole plan."""

    reserved: int
    spot: int
    on_demand: int
    cost: float
    all_on_demand: float
    message: str

    @property
    def saving(self) -> float:
        """Share of the price of everything on demand."""
        return 1 - self.cost / self.all_on_demand if self.all_on_demand else 0.0


def mix(
    replicas: Sequence[float], step_s: float, prices: Prices, *, gpus: int = 1, most_lost_share: float = 0.25
) -> Mix:
    """The cheapest mix for a plan of `replicas` at even steps.

    most_lost_share: the part of the replicas at any time that may be lost at once, which bounds spot.

    Raises:
        BadSetting: the plan is empty or holds negative numbers.
    """
    plan = np.asarray(replicas, dtype=np.float64)
    if not len(plan) or not np.isfinite(plan).all() or plan.min() < 0:
        raise BadSetting("Mix: a plan of at least one step is needed, with no negative or missing number.")
    layers = np.arange(1, math.ceil(plan.max()) + 1)
    # The share of the time in which each layer is there at all.
    used = np.array([np.clip(plan - (layer - 1), 0, 1).mean() for layer in layers])
    hours = len(plan) * step_s / 3600 * gpus
    splits = [_split(reserved, used, hours, prices, most_lost_share) for reserved in range(len(layers) + 1)]
    cost, reserved, spot = min(splits)
    on_demand = len(layers) - reserved - spot
    return Mix(
        reserved,
        spot,
        on_demand,
        cost,
        float(hours * used.sum() * prices.on_demand),
        f"{reserved} reserved (pays when used over {prices.reserved / prices.on_demand:.0%} of the time:"
        f" {prices.reserved:g} ÷ {prices.on_demand:g}), {spot} spot ({prices.spot:g} +"
        f" {prices.interruptions_per_hour:g} × {prices.reclaim_hours:g} × {prices.on_demand:g} ="
        f" {prices.spot_with_risk:.3g} an hour; at most {most_lost_share:.0%} may be lost at once),"
        f" {on_demand} on demand",
    )


def _split(reserved: int, used: Floats, hours: float, prices: Prices, most_lost_share: float) -> tuple[float, int, int]:
    """(cost, reserved, spot) when the lowest layers are reserved, the next are spot as far as allowed."""
    spot = 0
    if prices.spot_with_risk < prices.on_demand:
        spot = _spot_layers(reserved, len(used), most_lost_share)
    bought = used[reserved:]
    by_the_hour = bought[:spot].sum() * prices.spot_with_risk + bought[spot:].sum() * prices.on_demand
    return float(hours * (reserved * prices.reserved + by_the_hour)), reserved, spot


def _spot_layers(reserved: int, layers: int, most_lost_share: float) -> int:
    """Of the layers that are not reserved, so many from below that they are never a larger part of what is there."""
    if most_lost_share >= 1:
        return layers - reserved
    return min(int(reserved * most_lost_share / (1 - most_lost_share)), layers - reserved)
