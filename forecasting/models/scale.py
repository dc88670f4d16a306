"""The scale that a model works on: as measured, or the logarithm, on which a load's noise is even.

The logarithm is of 1 + load / unit, where the unit is a share of the mean load, so that requests and tokens, a second
or a minute, give the same forecast. (log1p of a load in requests/s would be linear for a quiet service.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from forecasting.series import Array

UNIT_SHARE: Final = 0.05
"""Of the mean load: below it the scale is near linear, so that zeros stay harmless."""
ROOM: Final = 1.5
"""How far beyond the largest load, on the logarithm, a forecast may go."""


class Scale(Protocol):
    def into(self, values: Array) -> Array: ...

    def back(self, values: Array) -> Array: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """As measured."""

    def into(self, values: Array) -> Array:
        return values

    def back(self, values: Array) -> Array:
        return values


@dataclass(frozen=True, slots=True)
class Logarithm:
    """log(1 + load / unit)"""

    unit: float
    ceiling: float
    """The largest value on this scale that is taken back, so that no exponential runs away."""

    @classmethod
    def of(cls, values: Array, unit_share: float = UNIT_SHARE) -> Logarithm:
        seen = values[~np.isnan(values)]
        unit = unit_share * float(seen.mean()) if len(seen) else 0.0
        unit = unit if unit > 0 else 1.0
        largest = float(seen.max()) if len(seen) else 0.0
        return cls(unit, float(np.log1p(largest / unit)) + ROOM)

    def into(self, values: Array) -> Array:
        return np.log1p(values / self.unit)

    def back(self, values: Array) -> Array:
        return self.unit * np.expm1(np.minimum(values, self.ceiling))
