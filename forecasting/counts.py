"""What gateways count, and the work that arrived: requests as they came, each as heavy as those answered around then.

Tokens are known when an answer ends, and an overloaded service answers late; what it will have to carry is what came.
Knows nothing of who counted, nor of clocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from forecasting.series import Array, Series

AROUND_STEPS: Final = 6
"""Steps, before and including, whose answers say how heavy a request is."""


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """What happened in each step: `column[i]` counts the step that begins at `start_s + i * step_s`. NaN is a gap.

    Each column is (n,) float64. `arrivals` are requests as they came; `completed` those that were answered in full,
    when they were, and the tokens are theirs.
    """

    start_s: float
    step_s: float
    arrivals: Array
    completed: Array
    input_tokens: Array
    output_tokens: Array

    @property
    def end_s(self) -> float:
        return self.start_s + len(self.arrivals) * self.step_s

    @property
    def columns(self) -> tuple[Array, Array, Array, Array]:
        return self.arrivals, self.completed, self.input_tokens, self.output_tokens

    def scaled(self, share: float) -> Counts:
        """That share of everything."""
        return Counts(self.start_s, self.step_s, *(share * column for column in self.columns))

    @property
    def first_gap_s(self) -> float | None:
        """Where the first step begins of which something is not known."""
        gaps = np.flatnonzero(np.isnan(self.columns).any(axis=0))
        return self.start_s + float(gaps[0]) * self.step_s if len(gaps) else None

    def between(self, from_s: float, to_s: float) -> Counts:
        """The steps from `from_s` to `to_s`, both of them where steps begin. Those that are not known are gaps."""
        first, last = (round((at_s - self.start_s) / self.step_s) for at_s in (from_s, to_s))
        before, after = max(min(-first, last - first), 0), max(last - max(len(self.arrivals), first), 0)
        columns = (
            np.pad(column[max(first, 0) : max(last, 0)], (before, after), constant_values=np.nan)
            for column in self.columns
        )
        return Counts(from_s, self.step_s, *columns)


def empty(start_s: float, end_s: float, step_s: float) -> Counts:
    """Nothing known."""
    n = max(0, round((end_s - start_s) / step_s))
    gaps = [np.full(n, np.nan) for _ in range(4)]
    return Counts(start_s, step_s, *gaps)


def joined(old: Counts | None, new: Counts, keep_from_s: float) -> Counts:
    """`new` after what `old` has before it, from `keep_from_s` on. Where both know a step, `new` is right; where it has
    a gap, what was known is."""
    if old is None or old.step_s != new.step_s or not old.start_s <= new.start_s <= old.end_s:
        return new
    first = max(0, round((keep_from_s - old.start_s) / old.step_s))
    last = round((new.start_s - old.start_s) / old.step_s)
    known = old.between(new.start_s, new.end_s)
    columns = [
        np.concatenate((before[first:last], np.where(np.isnan(after), overlap, after)))
        for before, overlap, after in zip(old.columns, known.columns, new.columns, strict=True)
    ]
    return Counts(old.start_s + min(first, last) * old.step_s, old.step_s, *columns)


def work_series(counts: Counts, input_weight: float, name: str) -> Series:
    """Work rate in weighted tokens each second; gaps stay gaps."""
    each = tokens_per_request(counts, input_weight)
    return Series(counts.start_s, counts.step_s, counts.arrivals * each / counts.step_s, name)


def tokens_per_request(counts: Counts, input_weight: float) -> Array:
    """(n,) weighted tokens of a request: of the steps around, else of all, else of what was answered at all: 1."""
    work = np.nan_to_num(input_weight * counts.input_tokens + counts.output_tokens)
    completed = np.nan_to_num(counts.completed)
    total = completed.sum()
    overall = work.sum() / total if total else 1.0
    window = np.ones(AROUND_STEPS)
    near = np.convolve(completed, window)[: len(completed)]
    near_work = np.convolve(work, window)[: len(work)]
    return np.asarray(np.where(near > 0, near_work / np.maximum(near, 1e-9), overall), dtype=np.float64)
