"""The seam between those who know the past and those who need it.

HistoryError
├── HistoryUnavailable    the source does not answer; what was read before still holds
└── StoreUnusable         the file cannot be opened, even anew
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from controllers.runtime.interface import Key
from forecasting.counts import Counts

__all__ = [
    "Array",
    "Counts",
    "HistoryError",
    "HistorySource",
    "HistoryUnavailable",
    "ServiceId",
    "StoreUnusable",
    "empty",
    "joined",
]

Array = npt.NDArray[np.float64]


class HistoryError(Exception):
    """The root of this package's errors."""


class HistoryUnavailable(HistoryError):
    """The source does not answer now."""


class StoreUnusable(HistoryError):
    """The file of the embedded store cannot be opened."""


class ServiceId(NamedTuple):
    """An InferenceService."""

    namespace: str
    name: str

    @classmethod
    def of(cls, key: Key) -> ServiceId:
        return cls(key.namespace or "", key.name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class HistorySource(Protocol):
    """Somebody who knows the past."""

    @property
    def name(self) -> str:
        """`Prometheus` or `Store`, as a CapacityForecast shows it."""
        ...

    async def read(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        """The steps from `start_s` to `end_s`, both multiples of `step_s`. Never blocks the loop.

        Raises:
            HistoryUnavailable: with what is wrong and what to do.
        """
        ...


def empty(start_s: float, end_s: float, step_s: float) -> Counts:
    """Nothing known."""
    n = max(0, round((end_s - start_s) / step_s))
    gaps = [np.full(n, np.nan) for _ in range(4)]
    return Counts(start_s, step_s, *gaps)


def joined(old: Counts | None, new: Counts, keep_from_s: float) -> Counts:
    """`new` after what `old` has before it, from `keep_from_s` on. Where both know a step, `new` is right."""
    if old is None or old.step_s != new.step_s or not old.start_s <= new.start_s <= old.end_s:
        return new
    first = max(0, round((keep_from_s - old.start_s) / old.step_s))
    last = round((new.start_s - old.start_s) / old.step_s)
    pairs = zip(old.columns, new.columns, strict=True)
    columns = [np.concatenate((before[first:last], after)) for before, after in pairs]
    return Counts(old.start_s + min(first, last) * old.step_s, old.step_s, *columns)
