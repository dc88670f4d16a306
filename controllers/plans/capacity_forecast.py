"""The CapacityForecast of one service: from what was foretold to what people and dashboards read. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from controllers.plans.carried import Carried
from controllers.plans.limits import Limit, lowest
from controllers.plans.scaling import QUANTILE
from controllers.plans.service_status import NewCondition
from controllers.plans.times import rfc3339
from controllers.plans.units import duration_text
from crds.capacity_forecast import CapacityForecastStatus, CostPlan, Coverage, Horizon
from crds.conditions import READY, RECONCILING, STALLED, ConditionStatus
from crds.contract import API_VERSION, LABEL_MANAGED_BY, LABEL_SERVICE, MANAGED_BY
from crds.scaling import Scaling
from forecasting.calibration import LEVELS, Calibration
from forecasting.capacity import replicas_for
from forecasting.cost import Prices, mix
from forecasting.forecast import Forecast
from forecasting.series import Series
from forecasting.standing import Forecasted

Manifest = dict[str, Any]

PEAK_FACTOR: Final = 1.5
BURST_RESERVE: Final = 1
"""What accelerators are bought for: half as much again as the highest load, and one worker."""
_MOST: Final = 1e12 - 1
"""Of a rate or a price: as many digits as their schema has."""
SHOWN_S: Final = (60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0)
"""Distances that are shown, as far as the forecast goes."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Everything that is known of one service's future."""

    view: Forecasted | None
    forecast: Forecast | None
    series: Series | None
    made_s: float
    source: str
    calibration: Calibration
    lead_time_s: float
    carries: Carried
    """One worker."""
    scaling: Scaling
    desired: int | None
    prices: Prices = field(default_factory=Prices)
    accelerators: int = 1
    """Of one worker: what a price is of."""
    limits: tuple[Limit, ...] = ()
    """What Tenant and pools leave."""


def manifest(service: Mapping[str, Any]) -> Manifest:
    """The object itself; it goes with its service."""
    meta = service["metadata"]
    owner = {
        "apiVersion": API_VERSION,
        "kind": service["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "CapacityForecast",
        "metadata": {
            "namespace": meta["namespace"],
            "name": meta["name"],
            "labels": {LABEL_MANAGED_BY: MANAGED_BY, LABEL_SERVICE: meta["name"]},
            "ownerReferences": [owner],
        },
        "spec": {"service": meta["name"]},
    }


_FOR_PERSONS: Final = ("HistoryStale",)
"""What hinders a forecast and does not end by itself: nothing counts the requests."""


def conditions(outlook: Outlook) -> list[NewCondition]:
    """Ready always; while it is not, Stalled where a person has to act, else Reconciling."""
    ready = _ready(outlook.view)
    if ready.status is ConditionStatus.TRUE:
        return [ready]
    kind = STALLED if ready.reason in _FOR_PERSONS else RECONCILING
    return [ready, NewCondition(kind, ConditionStatus.TRUE, ready.reason, ready.message)]


def _ready(view: Forecasted | None) -> NewCondition:
    """There is a forecast that a predictive policy would act on."""
    if view is None:
        return NewCondition(READY, ConditionStatus.FALSE, "Pending", "No forecast was made yet.")
    if not view.trusted:
        return NewCondition(READY, ConditionStatus.FALSE, view.reason, view.message)
    return NewCondition(READY, ConditionStatus.TRUE, view.reason, view.message)


def status(outlook: Outlook, generation: int) -> Manifest:
    """Everything but conditions."""
    filled = CapacityForecastStatus(
        observed_generation=generation,
        source=outlook.source,
        lead_time=duration_text(outlook.lead_time_s),
        capacity=_rate(outlook.carries.work_per_s) if outlook.carries.work_per_s else None,
        capacity_reason=outlook.carries.because[:512],
        replicas=outlook.desired,
        coverage=_coverage(outlook.calibration),
        coverage_text=_coverage_text(outlook.calibration),
    )
    forecast, series = outlook.forecast, outlook.series
    if forecast is not None and series is not None:
        filled = filled.model_copy(update=_foretold(outlook, forecast, series))
    return filled.dump()


def _foretold(outlook: Outlook, forecast: Forecast, series: Series) -> Mapping[str, Any]:
    now_s = outlook.made_s
    planned = _replicas(outlook, forecast.peak(now_s + outlook.lead_time_s, QUANTILE))
    return {
        "updated": rfc3339(now_s),
        "history": f"{duration_text(len(series) * series.step_s)} in steps of {duration_text(series.step_s)}, "
        f"{series.gap_share:.0%} missing",
        "forecaster": forecast.reason[:128],
        "load": _last_load(series),
        "planned_replicas": _left(planned, [one for one in outlook.limits if one.bounds]),
        "wanted_replicas": _left(planned, [one for one in outlook.limits if not one.of_pool]),
        "limited_by": _limited_by(outlook, planned, forecast),
        "peak": _peak(outlook, forecast, now_s),
        "provision": _provision(outlook, forecast, series),
        "cost": _cost(outlook, forecast, series),
        "horizons": [_horizon(outlook, forecast, now_s, ahead_s) for ahead_s in _shown(forecast, now_s)],
    }


def _shown(forecast: Forecast, now_s: float) -> list[float]:
    return [ahead_s for ahead_s in SHOWN_S if forecast.step_s <= ahead_s < forecast.end_s - now_s]


def _horizon(outlook: Outlook, forecast: Forecast, now_s: float, ahead_s: float) -> Horizon:
    p50, p80, p95, p99 = (forecast.at(now_s + ahead_s, level) for level in (0.5, 0.8, 0.95, 0.99))
    return Horizon(
        ahead=duration_text(ahead_s),
        p50=_rate(p50),
        p80=_rate(p80),
        p95=_rate(p95),
        p99=_rate(p99),
        replicas=_replicas(outlook, p95),
    )


def _peak(outlook: Outlook, forecast: Forecast, now_s: float) -> str | None:
    upper = forecast.quantile(QUANTILE)
    step = int(upper.argmax())
    replicas = _replicas(outlook, float(upper[step]))
    ahead_s = max(0.0, forecast.origin_s + step * forecast.step_s - now_s)
    when = f"in {duration_text(ahead_s)}" if ahead_s >= 1 else "now"
    return None if replicas is None else f"{replicas} {when}"


def _replicas(outlook: Outlook, work_per_s: float) -> int | None:
    if not outlook.carries.work_per_s:
        return None
    needed = replicas_for(work_per_s, outlook.carries.work_per_s)
    return min(max(needed, outlook.scaling.min), outlook.scaling.max)


def _left(replicas: int | None, limits: Sequence[Limit]) -> int | None:
    """What limits leave of a number of workers."""
    return None if replicas is None else min([replicas, *(one.replicas for one in limits)])


def _limited_by(outlook: Outlook, planned: int | None, forecast: Forecast) -> str | None:
    """The lowest limit, where the plan or else the highest forecast passes it."""
    limit, peak = lowest(outlook.limits), _replicas(outlook, float(forecast.quantile(QUANTILE).max()))
    if limit is None or planned is None or peak is None:
        return None
    for needed, when in ((planned, "at the lead time"), (peak, "at the peak")):
        if needed > limit.replicas:
            return f"{limit.by}, so {limit.replicas} of the {needed} {when}"[:512]
    return None


def _provision(outlook: Outlook, forecast: Forecast, series: Series) -> int | None:
    """For the highest load of history and forecast, half as much again, and one in reserve; `max` is no bound."""
    if not outlook.carries.work_per_s:
        return None
    highest = max(float(series.values[series.observed].max()), float(forecast.quantile(QUANTILE).max()))
    return replicas_for(highest, outlook.carries.work_per_s, peak_factor=PEAK_FACTOR, reserve=BURST_RESERVE)


def _cost(outlook: Outlook, forecast: Forecast, series: Series) -> CostPlan | None:
    """The cheapest mix for the workers of the history and of the forecast together: what is reserved is so for long."""
    work = [*series.values[series.observed].tolist(), *forecast.quantile(QUANTILE).tolist()]
    plan = [replicas for value in work if (replicas := _replicas(outlook, value)) is not None]
    if not plan:
        return None
    found = mix(plan, series.step_s, outlook.prices, gpus=outlook.accelerators)
    hours = len(plan) * series.step_s / 3600.0
    return CostPlan(
        reserved=found.reserved,
        on_demand=found.on_demand,
        spot=found.spot,
        per_hour=f"{min(found.cost / hours, _MOST):.3f}",
        message=found.message[:1024],
    )


def _last_load(series: Series) -> str | None:
    known = series.values[series.observed]
    return _rate(float(known[-1])) if len(known) else None


def _coverage(calibration: Calibration) -> list[Coverage] | None:
    if not calibration.samples:
        return None
    return [
        Coverage(level=f"{level:.0%}", achieved=f"{calibration.achieved(level):.1%}", samples=calibration.samples)
        for level in LEVELS
    ]


def _coverage_text(calibration: Calibration) -> str | None:
    achieved = calibration.achieved(0.95)
    return None if achieved is None else f"{achieved:.0%} of 95%"


def _rate(value: float) -> str:
    return f"{min(value, _MOST):.1f}"
