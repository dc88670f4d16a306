"""How well a number tells two kinds apart: area under the curve of a classifier that has a threshold for it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Auc:
    """0.5: chance; 1: every warmed probe was quicker than every other. With its interval of 95 % confidence."""

    value: float
    low: float
    high: float


def auc(warmed_s: Sequence[float], others_s: Sequence[float]) -> Auc:
    """The share of pairs in which the warmed one was quicker, ties half; the variance is DeLong's (1988).

    Raises:
        ValueError: fewer than two of either kind.
    """
    if min(len(warmed_s), len(others_s)) < 2:
        raise ValueError("two probes of each kind are needed at least")
    warmed, others = np.asarray(warmed_s)[:, None], np.asarray(others_s)[None, :]
    won = (warmed < others) + 0.5 * (warmed == others)
    value = float(won.mean())
    variance = won.mean(axis=1).var(ddof=1) / len(warmed_s) + won.mean(axis=0).var(ddof=1) / len(others_s)
    wide = Z_95 * float(np.sqrt(variance))
    return Auc(value, max(value - wide, 0.0), min(value + wide, 1.0))
