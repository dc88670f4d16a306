"""Adaptive conformal intervals: right coverage where it is due, and found again where it was lost."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.intervals import BUCKETS, MEMORY, AdaptiveConformal, buckets_of, groups_for, replay
from forecasting.series import DAY_S, Array

LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)


def lived(residuals: Array, steps: int = 1) -> tuple[AdaptiveConformal, Array]:
    """The state after the residuals, and the bounds that were given for each of them."""
    conformal = AdaptiveConformal(steps, LEVELS)
    given = np.empty((len(residuals), len(LEVELS)))
    for at, residual in enumerate(residuals):
        bucket = np.array([at % BUCKETS])
        given[at] = conformal.bounds()[0, bucket[0]]
        conformal.observe(np.array([0]), bucket, np.array([residual]), given[at : at + 1])
    return conformal, given


@pytest.mark.parametrize("seed", [0, 1])
def test_exchangeable_residuals_are_covered_as_promised(seed: int) -> None:
    residuals = np.random.default_rng(seed).exponential(1.0, 2000) - 1
    _, given = lived(residuals)
    share = (residuals[500:, None] <= given[500:]).mean(axis=0)
    assert share == pytest.approx(LEVELS, abs=0.03)


def test_a_lopsided_load_gets_lopsided_intervals() -> None:
    residuals = np.random.default_rng(0).exponential(1.0, 1000) - 1
    conformal, _ = lived(residuals)
    low, _, _, _, high = conformal.bounds()[0, 0]
    assert high > -2 * low
    assert -1.2 < low < -0.8


def test_coverage_is_found_again_when_the_noise_doubles() -> None:
    rng = np.random.default_rng(4)
    residuals = np.concatenate([rng.standard_normal(700), 2.5 * rng.standard_normal(1300)])
    _, given = lived(residuals)
    late = slice(1000, 2000)
    covered = ((residuals[late] >= given[late, 1]) & (residuals[late] <= given[late, 3])).mean()
    assert covered == pytest.approx(0.8, abs=0.04)


def test_what_comes_gets_wider_bounds_than_the_past_had_and_the_fewer_residuals_the_wider() -> None:
    residuals = np.random.default_rng(7).standard_normal(1600)
    spare = []
    for many in (100, 400, 1600):
        conformal, _ = lived(residuals[:many])
        past, coming = conformal.bounds()[0, 0], conformal.at(np.array([0.0]))[0]
        assert coming[0] < past[0]
        assert coming[2] == pytest.approx(past[2])
        assert coming[-1] > past[-1]
        spare.append(conformal._margin()[0, 0, -1])
    assert spare == pytest.approx([0.475 / 400, 0.475 / 1600, 0.475 / 6400])


def test_without_a_residual_the_prior_speaks_and_is_wide() -> None:
    bounds = AdaptiveConformal(6, LEVELS).bounds()
    assert bounds.shape == (4, BUCKETS, len(LEVELS))
    assert (bounds[..., -1] > 0.6).all()
    assert bounds[..., 2] == pytest.approx(0)


def test_gaps_teach_nothing_and_memory_is_bounded() -> None:
    conformal = AdaptiveConformal(1, LEVELS)
    conformal.observe(np.array([0]), np.array([0]), np.array([np.nan]), np.zeros((1, 5)))
    assert conformal.n_residuals == 0
    many = MEMORY + 500
    zeros = np.zeros(many, dtype=np.int64)
    conformal.observe(zeros, zeros, np.arange(many, dtype=np.float64), np.zeros((many, 5)))
    assert conformal.n_residuals == MEMORY
    assert conformal.memory.min() == 500


def test_a_replay_learns_no_outcome_before_its_time() -> None:
    origins = np.arange(100, 140, 2)
    residuals = np.ones((len(origins), 5))
    changed = residuals.copy()
    changed[-1] = 99
    changed[-2, 2:] = 99
    told = []
    for each in (residuals, changed):
        conformal = AdaptiveConformal(5, LEVELS)
        replay(conformal, each, origins, 0.0, 600.0)
        told.append(conformal)
    assert np.array_equal(told[0].memory, told[1].memory)
    assert np.array_equal(told[0].shift, told[1].shift)


def test_horizons_share_residuals_in_groups_that_double() -> None:
    assert groups_for(9).tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 4]
    assert buckets_of(np.array([0.0, DAY_S / 2, DAY_S * 3 - 1])).tolist() == [0, 2, 3]
