"""The seam between those who know the past and those who need it.

HistoryError
├── HistoryUnavailable    the source does not answer; what was read before still holds
└── StoreUnusable         the file cannot be opened, even anew, and its disk is not the reason
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from controllers.runtime.interface import Key
from forecasting.counts import Counts, empty, joined

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

    async def arrivals(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Array:
        """(n,) the first column of `read` alone, which is asked for each minute.

        Raises:
            HistoryUnavailable: as `read`.
        """
        ...
