"""Adaptive conformal quantiles: how far above and below the forecast the load has been, at each horizon and hour.

Split conformal prediction takes the quantile of past residuals as the bound of the next one (Vovk et al. 2005). Loads
drift, so the level at which that quantile is read is moved after each outcome (Gibbs and Candès 2021, ACI):

    level(t + 1) = level(t) + RATE × (wanted - share of outcomes that were at or below the bound)

Each level is moved on its own, so intervals are asymmetric. Horizons that lie close share their residuals; levels are
moved per horizon group, with a further, slower part per hour bucket of the target's time. A level beyond the residuals
reads a bound beyond them, in proportion. While residuals are few, a random walk of their size is mixed in.

Nothing here knows what the residuals are of, or what the time is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from forecasting.series import DAY_S, Array

Integers = npt.NDArray[np.int64]

RATE: Final = 0.015
BUCKET_RATE: Final = 0.003
BUCKETS: Final = 4
"""Of the day: nights and afternoons err differently."""
MEMORY: Final = 2000
"""Residuals kept for each horizon group; the oldest go first."""
BEYOND: Final = 0.1
"""How far a level may leave the range from 0 to 1."""
STRETCH: Final = 10.0
"""A bound that is 1/STRETCH beyond the residuals in level is one of their ranges beyond them in value."""
DELAYS: Final = 8
"""An outcome that comes this many forecasts late moves its level half as much."""
BOUNDS_EVERY: Final = 2
"""In a replay, bounds are read anew at each second forecast: sorting the residuals is most of its time."""
PRIOR_SPREAD: Final = 0.35
"""With no residual at all, the 0.99 bound is 0.8 above the forecast."""
PRIOR_WEIGHT: Final = 4.0
ENOUGH: Final = 100
"""Independent residuals a horizon from which on the prior has no say."""
EACH_COUNTS: Final = 4
"""Residuals that overlap in time are not one alone, either: those as far apart as a forecast reaches count so much."""
FEWEST: Final = 10
"""One-step residuals from which on the prior is a random walk of their size."""
DOUBT: Final = 2.5
WITHIN_SIGMA: Final = 0.6827
"""The share of a normal distribution within one standard deviation."""


def groups_for(steps: int) -> Integers:
    """(steps,) the group of each horizon: 1, 2, 3-4, 5-8, 9-16, …"""
    return np.ceil(np.log2(np.arange(1, steps + 1))).astype(np.int64)


def buckets_of(times_s: Array) -> Integers:
    """The hour bucket of each time."""
    return ((times_s % DAY_S) * BUCKETS // DAY_S).astype(np.int64)


@dataclass(slots=True)
class AdaptiveConformal:
    """The state of the intervals of one series. Residuals are actual - forecast, on a scale of the caller's choice.

    delay_unit: the steps between two forecasts; an outcome that comes many of them late moves its level less, for a
    level that is moved on and on before the answer comes overshoots.
    """

    steps: int
    levels: tuple[float, ...]
    delay_unit: int = 1
    group: Integers = field(init=False)
    shift: Array = field(init=False)
    """(groups, levels) added to the wanted level."""
    bucket_shift: Array = field(init=False)
    """(groups, BUCKETS, levels)"""
    memory: Array = field(init=False)
    """(groups, MEMORY) the residuals, a ring; inf where there is none yet."""
    counts: Integers = field(init=False)
    """(groups,) residuals ever seen."""

    def __post_init__(self) -> None:
        self.group = groups_for(self.steps)
        n_groups = int(self.group[-1]) + 1
        self.shift = np.zeros((n_groups, len(self.levels)))
        self.bucket_shift = np.zeros((n_groups, BUCKETS, len(self.levels)))
        self.memory = np.full((n_groups, MEMORY), np.inf)
        self.counts = np.zeros(n_groups, dtype=np.int64)

    @property
    def n_residuals(self) -> int:
        return int(np.minimum(self.counts, MEMORY).sum())

    def bounds(self, margin: Array | float = 0.0) -> Array:
        """(groups, BUCKETS, levels) of the residual, rising along the levels. margin: (groups, 1, levels) of level."""
        at = np.asarray(self.levels) + self.shift[:, None, :] + self.bucket_shift + margin
        found = _read(np.sort(self.memory, axis=1), np.minimum(self.counts, MEMORY), at)
        prior = (self._prior_spread()[:, None] * ndtri(np.asarray(self.levels)))[:, None, :]
        weight = self._prior_weight()[:, None, None]
        return np.asarray(np.maximum.accumulate(weight * prior + (1 - weight) * found, axis=-1), dtype=np.float64)

    def _prior_spread(self) -> Array:
        """(groups,) of a random walk whose steps are as large as the first horizon's residuals, once there are some.

        Where a horizon has residuals of its own, at most DOUBT times as wide as they are.
        """
        sizes = np.abs(self.memory)
        kept = np.minimum(self.counts, MEMORY)
        if kept[0] < FEWEST:
            return np.full(len(kept), PRIOR_SPREAD)
        middle = np.sort(sizes, axis=1)[np.arange(len(kept)), (kept * WITHIN_SIGMA).astype(np.int64)]
        own = np.where(kept >= FEWEST, DOUBT * middle, np.inf)
        walk = np.minimum(middle[0] * np.sqrt(2.0 ** np.arange(len(kept))), 2 * PRIOR_SPREAD)
        return np.asarray(np.minimum(walk, own), dtype=np.float64)

    def _prior_weight(self) -> Array:
        """(groups,) from 1 without residuals to 0 with ENOUGH; those that overlap in time count as a part of one."""
        independent = self._independent(self.counts)
        prior = PRIOR_WEIGHT * np.maximum(1 - independent / ENOUGH, 0.0)
        return np.where(self.counts == 0, 1.0, prior / np.maximum(prior + independent, 1e-9))

    def _independent(self, counts: Integers) -> Array:
        """(groups,) of so many residuals, those that do not overlap in time, for each horizon."""
        apart = np.minimum(self.delay_unit / 2.0 ** np.arange(len(counts)), 1.0)
        return np.asarray(counts / np.bincount(self.group) * apart, dtype=np.float64)

    def _margin(self) -> Array:
        """(groups, 1, levels) for what comes next, which is not among the residuals: wider, the fewer they were.

        Not for a replay: its levels are moved until the bounds hold there, and would take any margin back.
        """
        residuals = EACH_COUNTS * self._independent(np.minimum(self.counts, MEMORY))
        away = np.asarray(self.levels) - 0.5
        return np.asarray((away / np.maximum(residuals, EACH_COUNTS)[:, None])[:, None, :], dtype=np.float64)

    def at(self, target_times_s: Array) -> Array:
        """(steps, levels) bounds of the residuals of a forecast whose steps begin at `target_times_s`."""
        return np.asarray(self.bounds(self._margin())[self.group, buckets_of(target_times_s)], dtype=np.float64)

    def observe(self, steps_ahead: Integers, buckets: Integers, residuals: Array, bounds: Array) -> None:
        """Learn from outcomes. steps_ahead, buckets, residuals: (m,), steps counted from 0; bounds: (m, levels), those
        that were given when the forecast was made. NaN residuals are skipped."""
        said = ~np.isnan(residuals)
        group, bucket, residual = self.group[steps_ahead[said]], buckets[said], residuals[said]
        missed = np.asarray(self.levels) - (residual[:, None] <= bounds[said])
        cells = _mean_by(group * BUCKETS + bucket, missed, self.bucket_shift.size // len(self.levels))
        late = 2.0 ** np.arange(len(self.shift)) / (DELAYS * self.delay_unit)
        # What the prior got wrong says nothing about the residuals' levels.
        slower = ((1 - self._prior_weight()) / (1 + late))[:, None]
        levels = np.asarray(self.levels)
        shift = self.shift + RATE * slower * _mean_by(group, missed, len(self.shift))
        self.shift = np.clip(shift, -levels - BEYOND, 1 - levels + BEYOND)
        bucket_shift = self.bucket_shift + BUCKET_RATE * slower[:, None] * cells.reshape(self.bucket_shift.shape)
        self.bucket_shift = np.clip(bucket_shift, -BEYOND, BEYOND)
        self._remember(group, residual)

    def _remember(self, group: Integers, residual: Array) -> None:
        """group: rising or not; the order within one group is the order of time."""
        order = np.argsort(group, kind="stable")
        group, residual = group[order], residual[order]
        new = np.bincount(group, minlength=len(self.counts))
        place = np.arange(len(group)) - np.repeat(np.cumsum(new) - new, new)
        self.memory[group, (self.counts[group] + place) % MEMORY] = residual
        self.counts = self.counts + new


def replay(conformal: AdaptiveConformal, residuals: Array, origins: Integers, start_s: float, step_s: float) -> None:
    """Let `conformal` live through a backtest, each outcome known only once its time has come.

    residuals: (origins, steps); origins: (origins,) rising, the steps known at each, counted from `start_s`.
    """
    horizon = np.arange(conformal.steps)
    bounds = np.empty((len(origins), *conformal.bucket_shift.shape))
    for now, origin in enumerate(origins):
        made = np.searchsorted(origins, origin - horizon, side="left") - 1
        known = horizon[made >= 0]
        made = made[made >= 0]
        if len(made):
            bucket = buckets_of(start_s + step_s * (origins[made] + known))
            given = bounds[made, conformal.group[known], bucket]
            conformal.observe(known, bucket, residuals[made, known], given)
        fresh = now % BOUNDS_EVERY == 0
        bounds[now] = conformal.bounds() if fresh else bounds[now - 1]


def _mean_by(cell: Integers, values: Array, n_cells: int) -> Array:
    """(n_cells, levels) means of the rows of each cell, 0 where it has none."""
    counts = np.bincount(cell, minlength=n_cells)
    indicator = (cell[None, :] == np.arange(n_cells)[:, None]).astype(np.float64)
    return np.asarray(indicator @ values / np.maximum(counts, 1)[:, None], dtype=np.float64)


def _read(ordered: Array, n: Integers, level: Array) -> Array:
    """The residual at each level, with the conformal (n + 1) correction; beyond the residuals in proportion.

    ordered: (groups, MEMORY) the first n[g] of a row are its residuals. level: (groups, BUCKETS, levels).
    """
    count = n[:, None, None]
    last = np.maximum(count - 1, 0)
    place = np.clip(level * (count + 1) - 1, 0, last)
    low = place.astype(np.int64)
    row = np.arange(len(ordered))[:, None, None]
    safe = np.where(np.isfinite(ordered), ordered, 0.0)
    under, over = safe[row, low], safe[row, np.minimum(low + 1, last)]
    inside = under + (over - under) * (place - low)
    reach = STRETCH * (safe[row, last] - safe[:, :1, None])
    above = np.clip(level - count / (count + 1), 0, BEYOND)
    below = np.clip(1 / (count + 1) - level, 0, BEYOND)
    return np.asarray(inside + reach * (above - below), dtype=np.float64)
