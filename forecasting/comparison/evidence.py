"""From summed log evidence to verdicts: mixtures, always-valid p-values, and Holm's correction across metrics.

A p-value made so may be looked at after every batch: that it ever falls below alpha has a probability of at most alpha.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from forecasting.comparison.tilt import Array

Name = TypeVar("Name")


def mixture(evidence: Array) -> Array:
    """The log of the mean over alternatives, the last axis."""
    peak = evidence.max(-1)
    return np.asarray(peak + np.log(np.exp(evidence - peak[..., None]).mean(-1)))


def weaker_half(evidence: Array) -> Array:
    """The log evidence of whichever half of the alternatives convinces less."""
    middle = evidence.shape[-1] // 2
    return np.minimum(mixture(evidence[..., :middle]), mixture(evidence[..., middle:]))


def p_value(log_evidence: float) -> float:
    """By Ville's inequality."""
    return float(np.exp(-max(0.0, log_evidence)))


def holm(p_values: Mapping[Name, float], alpha: float) -> frozenset[Name]:
    """The hypotheses that are rejected, with at most `alpha` risk of rejecting any true one (S. Holm, 1979)."""
    rejected: list[Name] = []
    for at, name in enumerate(sorted(p_values, key=lambda one: p_values[one])):
        if p_values[name] > alpha / (len(p_values) - at):
            break
        rejected.append(name)
    return frozenset(rejected)
