"""The planner, asked again only when its question has changed: most looks at a pool ask the same as the one before.

A plan follows from nothing but its arguments, so a remembered one is the one that would be made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controllers.plans.mig.demand import Plan, PlanSettings, Unit, Want
from controllers.plans.mig.geometry import Family
from controllers.plans.mig.planner import plan_layouts


class Remembered:
    """Of one pool: the last question and its answer."""

    def __init__(self) -> None:
        self._asked: tuple[object, ...] | None = None
        self._answer: Plan | None = None
        self.solved = 0
        """How often the solver was asked."""

    def __call__(
        self, wants: Sequence[Want], units: Sequence[Unit], families: Mapping[str, Family], settings: PlanSettings
    ) -> Plan:
        question = (tuple(wants), tuple(units), dict(families), settings)
        if self._answer is None or question != self._asked:
            self._answer = plan_layouts(wants, units, families, settings)
            self._asked = question
            self.solved += 1
        return self._answer
