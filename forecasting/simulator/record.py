"""The load that was measured up to now, at even steps: the memory that a forecasting autoscaler has.

What arrives does not depend on the number of replicas, so one record serves every autoscaler of a trace. Nothing after
the asked time is ever given out, and the newest step is as late as the metrics are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecasting.simulator.arrivals import SecondArrivals
from forecasting.simulator.requests import Floats

STEP_S = 15


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """Steps of STEP_S, from `past_steps` of them before the run begins.

    requests, inputs, outputs: (steps,) per second; the output rate is requests × the mean answer.
    """

    past_steps: int
    requests: Floats
    inputs: Floats
    outputs: Floats
    lag_s: float

    def known_until(self, now_s: float) -> int:
        """How many steps are known at `now_s` of the run."""
        return min(max(self.past_steps + int((now_s - self.lag_s) // STEP_S), 0), len(self.requests))

    def work(self, input_weight: float) -> Floats:
        """(steps,) output tokens/s plus the weighted input tokens/s."""
        return np.asarray(self.outputs + input_weight * self.inputs, dtype=np.float64)


def record_of(past: SecondArrivals | None, arrivals: SecondArrivals, lag_s: float) -> Record:
    """The steps of a trace, after those of the days before it."""
    parts = [each for each in (past, arrivals) if each is not None]
    requests = np.concatenate([_steps(each.counts) for each in parts])
    inputs = np.concatenate([_steps(each.inputs) for each in parts])
    outputs = requests * (arrivals.lengths.decode + 1)
    return Record(len(_steps(past.counts)) if past is not None else 0, requests, inputs, outputs, lag_s)


def _steps(values: Floats) -> Floats:
    whole = len(values) // STEP_S * STEP_S
    return np.asarray(values[:whole].reshape(-1, STEP_S).mean(axis=1), dtype=np.float64)
