"""The work that arrived in each step: requests as they came, each as heavy as those that were answered around then.

Tokens are known when an answer ends, and an overloaded service answers late; what it will have to carry is what came.
Pure.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from controllers.history.interface import Array, Counts
from controllers.plans.capacity import INPUT_WEIGHT
from controllers.plans.carried import MeanLengths
from forecasting.series import DAY_S, Series

AROUND_STEPS: Final = 6
"""Steps, before and including, whose answers say how heavy a request is."""


def work_series(counts: Counts, name: str) -> Series:
    """Work rate in weighted tokens each second; gaps stay gaps."""
    each = tokens_per_request(counts)
    return Series(counts.start_s, counts.step_s, counts.arrivals * each / counts.step_s, name)


def mean_lengths(counts: Counts) -> MeanLengths | None:
    """Of the requests that were answered within the last day of the history; None of too few."""
    steps = max(round(DAY_S / counts.step_s), 1)
    done, inputs, outputs = (float(np.nansum(column[-steps:])) for column in counts.columns[1:])
    return MeanLengths.of(done, inputs, outputs)


def tokens_per_request(counts: Counts) -> Array:
    """(n,) weighted tokens of a request: of the steps around, else of all, else of what was answered at all: 1."""
    work = np.nan_to_num(INPUT_WEIGHT * counts.input_tokens + counts.output_tokens)
    completed = np.nan_to_num(counts.completed)
    total = completed.sum()
    overall = work.sum() / total if total else 1.0
    window = np.ones(AROUND_STEPS)
    near = np.convolve(completed, window)[: len(completed)]
    near_work = np.convolve(work, window)[: len(work)]
    return np.asarray(np.where(near > 0, near_work / np.maximum(near, 1e-9), overall), dtype=np.float64)
