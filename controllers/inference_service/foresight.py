"""The seam between this controller and what lies beyond the moment: forecasts, lead times, the record of decisions.

`Shortsighted` foretells nothing, for a controller that runs without a history.
"""

from __future__ import annotations

from typing import Protocol

from controllers.plans.capacity import LEAST_LEAD_S
from controllers.plans.carried import MeanLengths
from controllers.runtime.interface import Key
from forecasting.policy import Judged, ScalingDecision
from forecasting.standing import Forecasted


class Foresight(Protocol):
    """What decisions about InferenceServices look at and leave behind. Nothing here waits."""

    def follow(self, key: Key, lead_time_s: float) -> None:
        """Forecast this service from now on."""
        ...

    def forget(self, key: Key) -> None:
        """It does not look ahead, or is gone."""
        ...

    def view(self, key: Key) -> Forecasted | None:
        """What is foretold of it; None before the first look at its history."""
        ...

    def lengths(self, key: Key) -> MeanLengths | None:
        """Of its requests, lately; None while too few were answered."""
        ...

    def is_awaited(self, key: Key) -> bool:
        """Whether its history has yet to be read for the first time."""
        ...

    def judged(self, key: Key) -> Judged | None:
        """How many of its requests met the targets of their SLA; None where nobody counts."""
        ...

    def lead_time_s(self, profile: str) -> float:
        """How long a new worker of this profile takes."""
        ...

    def record(self, key: Key, decision: ScalingDecision) -> None:
        """Keep the decision and its inputs, where they say something new."""
        ...


class Shortsighted:
    """A `Foresight` that knows nothing and keeps nothing."""

    def follow(self, key: Key, lead_time_s: float) -> None:
        """There is nothing to follow with."""

    def forget(self, key: Key) -> None:
        """There is nothing to forget."""

    def view(self, key: Key) -> Forecasted | None:
        return None

    def lengths(self, key: Key) -> MeanLengths | None:
        return None

    def is_awaited(self, key: Key) -> bool:
        return False

    def judged(self, key: Key) -> Judged | None:
        return None

    def lead_time_s(self, profile: str) -> float:
        return LEAST_LEAD_S

    def record(self, key: Key, decision: ScalingDecision) -> None:
        """Nobody will ask."""
