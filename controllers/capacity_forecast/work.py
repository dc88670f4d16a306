"""How long a service's requests are, out of its history. Pure."""

from __future__ import annotations

import numpy as np

from controllers.history.interface import Counts
from controllers.plans.carried import MeanLengths
from forecasting.series import DAY_S


def mean_lengths(counts: Counts) -> MeanLengths | None:
    """Of the requests that were answered within the last day of the history, of all where those are too few; None of
    too few in all."""
    day = max(round(DAY_S / counts.step_s), 1)
    return _mean_lengths(counts, day) or _mean_lengths(counts, len(counts.arrivals))


def _mean_lengths(counts: Counts, steps: int) -> MeanLengths | None:
    done, inputs, outputs = (float(np.nansum(column[-steps:])) for column in counts.columns[1:])
    return MeanLengths.of(done, inputs, outputs)
