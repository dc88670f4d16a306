"""A load over time at even steps: the one shape of data that every forecaster, interval and score takes.

A gap is NaN and stays NaN; nothing here turns it into zero, and nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from forecasting.errors import BadSetting, DisorderedTimes, DuplicateTime, InfiniteValue, NegativeCount, SeriesError

Array = npt.NDArray[np.float64]

DAY_S: Final = 86_400.0
WEEK_S: Final = 7 * DAY_S


class Aggregate(StrEnum):
    """How several samples of one step become one value."""

    MEAN = "mean"
    SUM = "sum"
    MAX = "max"
    LAST = "last"


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """`values[i]` is the load of the step that begins at `start_s + i * step_s`. NaN is a gap.

    values: (n,) float64, read-only, finite and ≥ 0 where observed.
    Raises: BadSetting, SeriesError, NegativeCount, InfiniteValue.
    """

    start_s: float
    step_s: float
    values: Array
    name: str = "series"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.step_s) and self.step_s > 0):
            raise BadSetting(f"Series '{self.name}': step_s is {self.step_s}; it must be a positive number of seconds.")
        if not np.isfinite(self.start_s):
            raise InfiniteValue(f"Series '{self.name}': start_s is {self.start_s}; it must be a finite time.")
        values = np.array(self.values, dtype=np.float64)
        if values.ndim != 1:
            raise SeriesError(f"Series '{self.name}': values have {values.ndim} dimensions; one is allowed.")
        _check_loads(self.name, values)
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Series)
            and (self.start_s, self.step_s, self.name) == (other.start_s, other.step_s, other.name)
            and np.array_equal(self.values, other.values, equal_nan=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        return Series, (self.start_s, self.step_s, self.values, self.name)

    @property
    def end_s(self) -> float:
        """Where the last step ends, and where the first step of a forecast begins."""
        return self.start_s + len(self) * self.step_s

    @property
    def times_s(self) -> Array:
        """(n,) the beginning of each step."""
        return self.start_s + self.step_s * np.arange(len(self), dtype=np.float64)

    @property
    def observed(self) -> npt.NDArray[np.bool_]:
        """(n,) True where there is a value."""
        return ~np.isnan(self.values)

    @property
    def n_observed(self) -> int:
        return int(np.count_nonzero(self.observed))

    @property
    def gap_share(self) -> float:
        """The part of the steps that is missing, from 0 to 1; 0 of an empty series."""
        return 1 - self.n_observed / len(self) if len(self) else 0.0

    def times_ahead_s(self, steps: int) -> Array:
        """(steps,) the beginnings of the steps after the end."""
        return self.end_s + self.step_s * np.arange(steps, dtype=np.float64)

    def steps_in(self, length_s: float) -> int | None:
        """How many steps make `length_s`; None where the steps do not divide it."""
        steps = round(length_s / self.step_s)
        return steps if steps >= 1 and abs(steps * self.step_s - length_s) < 1e-6 * length_s else None

    def first(self, n: int) -> Series:
        """The first `n` steps: what was known at an earlier time."""
        return Series(self.start_s, self.step_s, self.values[: max(n, 0)], self.name)

    def last(self, n: int) -> Series:
        """The last `n` steps, all where there are fewer."""
        skipped = max(len(self) - max(n, 0), 0)
        return Series(self.start_s + skipped * self.step_s, self.step_s, self.values[skipped:], self.name)


def regularise(
    times_s: Sequence[float] | Array,
    values: Sequence[float] | Array,
    step_s: float,
    *,
    aggregate: Aggregate = Aggregate.MEAN,
    name: str = "series",
) -> Series:
    """Irregular samples on even steps, aligned to multiples of `step_s`; a step without a sample is a gap.

    times_s: (n,) strictly increasing seconds. values: (n,) ≥ 0, NaN where a sample says nothing.
    Raises: SeriesError (lengths), DisorderedTimes, DuplicateTime, InfiniteValue, NegativeCount, BadSetting.
    """
    times = np.asarray(times_s, dtype=np.float64)
    samples = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(step_s) and step_s > 0):
        raise BadSetting(f"Series '{name}': step_s is {step_s}; it must be a positive number of seconds.")
    if times.shape != samples.shape or times.ndim != 1:
        raise SeriesError(f"Series '{name}': {times.shape} times and {samples.shape} values; give one value a time.")
    _check_times(name, times)
    _check_loads(name, samples)
    if not len(times):
        return Series(0.0, step_s, samples, name)
    steps = np.floor(times / step_s).astype(np.int64)
    _check_extent(name, int(steps[-1] - steps[0]) + 1, step_s)
    return Series(float(steps[0] * step_s), step_s, _aggregated(steps - steps[0], samples, aggregate), name)


MAX_STEPS: Final = 10_000_000
"""A typing error in a timestamp (milliseconds for seconds) must not become an array of terabytes."""


def _aggregated(steps: npt.NDArray[np.int64], samples: Array, aggregate: Aggregate) -> Array:
    out = np.full(int(steps[-1]) + 1, np.nan)
    said = ~np.isnan(samples)
    steps, samples = steps[said], samples[said]
    if aggregate is Aggregate.LAST:
        out[steps] = samples
    elif aggregate is Aggregate.MAX:
        np.fmax.at(out, steps, samples)
    else:
        count = np.bincount(steps, minlength=len(out))
        total = np.bincount(steps, weights=samples, minlength=len(out))
        seen = count > 0
        out[seen] = total[seen] / (count[seen] if aggregate is Aggregate.MEAN else 1)
    return out


def _check_extent(name: str, n_steps: int, step_s: float) -> None:
    if n_steps > MAX_STEPS:
        raise SeriesError(
            f"Series '{name}': the samples span {n_steps} steps of {step_s} s; {MAX_STEPS} are allowed."
            " Check the unit of the times (seconds)."
        )


def _check_times(name: str, times: Array) -> None:
    bad = np.flatnonzero(~np.isfinite(times))
    if len(bad):
        raise InfiniteValue(f"Series '{name}': time {times[bad[0]]} at sample {bad[0]}; times must be finite.")
    gone = np.diff(times)
    back = np.flatnonzero(gone < 0)
    if len(back):
        at = int(back[0]) + 1
        raise DisorderedTimes(
            f"Series '{name}': time {times[at]} at sample {at} is before {times[at - 1]}; sort the samples by time."
        )
    same = np.flatnonzero(gone == 0)
    if len(same):
        at = int(same[0]) + 1
        raise DuplicateTime(
            f"Series '{name}': time {times[at]} comes twice, at samples {at - 1} and {at}; keep one of them."
        )


def _check_loads(name: str, values: Array) -> None:
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        at = int(infinite[0])
        raise InfiniteValue(f"Series '{name}': {values[at]} at index {at}; a load is finite, a gap is NaN.")
    negative = np.flatnonzero(values < 0)
    if len(negative):
        at = int(negative[0])
        raise NegativeCount(f"Series '{name}': {values[at]} at index {at}; a load is at least 0, a gap is NaN.")
