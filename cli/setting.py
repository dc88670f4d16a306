"""What a simulation is of: the load that is replayed, and what holds for every service of a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cli.service_files import Subject
from controllers.plans.capacity import lead_time_s
from crds.scaling import ScalingPolicy
from forecasting.cost import Prices
from forecasting.counts import Counts
from forecasting.profile import Profile
from forecasting.simulator.arrivals import SecondArrivals
from forecasting.simulator.autoscalers.foretold import OperatorForecasts
from forecasting.simulator.requests import Requests
from forecasting.simulator.world import ColdStart


class ForecastBy(StrEnum):
    """Whose forecast the policy is given."""

    OPERATOR = "operator"
    GROWTH = "growth"


@dataclass(frozen=True, slots=True)
class Load:
    """What is replayed. requests is None where only counts a second are known or there are too many.

    past: what was counted before, where that is known.
    """

    name: str
    arrivals: SecondArrivals
    requests: Requests | None
    past: Counts | None = None


@dataclass(frozen=True, slots=True)
class Foretelling:
    """by: None where no service of the call asks for a forecast. forecasts: of the operator."""

    by: ForecastBy | None
    because: str
    forecasts: OperatorForecasts | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """What holds for every service of a call. start_s: Unix time at which the trace begins."""

    profile: Profile
    cold_start: ColdStart
    prices: Prices
    seed: int
    gpu_price: float
    start_s: float
    foretelling: Foretelling

    @property
    def lead_s(self) -> float:
        """As the operator would take it from its last cold starts."""
        return lead_time_s([self.cold_start.draw_s(self.seed, at) for at in range(200)])


def asks_for_forecast(subject: Subject) -> bool:
    """Whether anything of it depends on one."""
    scaling = subject.spec.scaling
    return scaling is not None and scaling.policy is not ScalingPolicy.REACTIVE
