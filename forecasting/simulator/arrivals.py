"""What the fluid simulation needs of a trace: per second how many requests came, with how many tokens.

And of the whole trace the quantiles of both lengths, by which the share of a second's requests that met their targets
is told. Averages only; single requests are the exact simulation's matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from forecasting.errors import BadSetting
from forecasting.simulator.requests import Floats, Requests

LENGTH_BINS = 12
# Deviations of the logarithms of token lengths, as √(2·ln(mean ÷ median)) of the Azure conversation trace has them.
INPUT_SPREAD, OUTPUT_SPREAD = 0.5, 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """Token lengths of a trace. inputs, outputs: (LENGTH_BINS,) means of equal shares of the requests.

    resident: mean KV tokens of a decoding sequence (long answers stay longer, so they count for more).
    decode: mean iterations a request decodes.
    """

    inputs: Floats
    outputs: Floats
    resident: float
    decode: float
    mean_input: float


@dataclass(frozen=True, slots=True, eq=False)
class SecondArrivals:
    """counts, inputs: (seconds,) requests and prompt tokens that came in each second."""

    counts: Floats
    inputs: Floats
    lengths: Lengths

    def __len__(self) -> int:
        return len(self.counts)

    def between(self, start_s: int, end_s: int) -> SecondArrivals:
        return SecondArrivals(self.counts[start_s:end_s], self.inputs[start_s:end_s], self.lengths)


def lengths_of(inputs: Floats, outputs: Floats) -> Lengths:
    """Bins and means of the lengths of requests.

    Raises:
        BadSetting: there is no request.
    """
    if not len(inputs):
        raise BadSetting("Trace: it holds no request; nothing can be simulated.")
    decode = np.maximum(outputs - 1.0, 0.0)
    total = decode.sum()
    resident = float((decode * (inputs + decode / 2)).sum() / total) if total else float(inputs.mean())
    return Lengths(_bins(inputs), _bins(outputs), resident, float(decode.mean()), float(inputs.mean()))


def lengths_around(mean_input: float, mean_output: float) -> Lengths:
    """Lengths of which only the means are known: spread as those of the Azure conversation trace are, log-normally."""
    inputs, outputs = _log_normal(mean_input, INPUT_SPREAD), _log_normal(mean_output, OUTPUT_SPREAD)
    decode = np.maximum(outputs - 1.0, 0.0)
    # Long answers stay longer, so they count for more; input and output lengths are taken as independent.
    longer = float((decode**2).mean() / decode.mean()) if decode.any() else 0.0
    return Lengths(inputs, outputs, mean_input + longer / 2, float(decode.mean()), mean_input)


def _log_normal(mean: float, spread: float) -> Floats:
    """(LENGTH_BINS,) with that mean."""
    levels = (np.arange(LENGTH_BINS) + 0.5) / LENGTH_BINS
    shape = np.exp(spread * ndtri(levels))
    return np.asarray(np.maximum(mean * shape / shape.mean(), 1.0), dtype=np.float64)


def _bins(values: Floats) -> Floats:
    levels = (np.arange(LENGTH_BINS) + 0.5) / LENGTH_BINS
    return np.asarray(np.quantile(values, levels), dtype=np.float64)


def per_second(requests: Requests) -> SecondArrivals:
    """Counts of a trace of single requests."""
    seconds = int(np.ceil(requests.duration_s))
    at = np.minimum(requests.arrival_s.astype(np.int64), seconds - 1)
    inputs = requests.input_tokens.astype(np.float64)
    return SecondArrivals(
        np.bincount(at, minlength=seconds).astype(np.float64),
        np.bincount(at, weights=inputs, minlength=seconds).astype(np.float64),
        lengths_of(inputs, requests.output_tokens.astype(np.float64)),
    )
