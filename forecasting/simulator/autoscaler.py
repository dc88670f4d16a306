"""What every autoscaler in the comparison is: something that looks at a view now and then, and says a number."""

from __future__ import annotations

from typing import Protocol

from forecasting.simulator.view import View


class Autoscaler(Protocol):
    """Has memory of its own; one object serves one run."""

    @property
    def name(self) -> str:
        """As results call it."""

    @property
    def period_s(self) -> int:
        """Seconds between two decisions; a multiple of 15."""

    def desired(self, view: View) -> int:
        """Replicas to ask for; the world's bounds are applied after."""
