"""A rule and what is known of a service: is it broken now, and by how much? Numbers that are missing decide nothing.

The same questions are asked of a real Prometheus by rule_files.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from controllers.history.interface import Array, Counts
from controllers.plans.units import duration_text
from crds.alert_policy import AlertRule, Anomaly, BurnRate, Direction, Metric, Threshold, Trend
from crds.alert_status import AlertSeverity
from crds.fields import quantity, seconds

FINE_S: Final = 60.0
COARSE_S: Final = 600.0
FINE_SPAN_S: Final = 6 * 3600.0
"""Longer windows are looked at in coarse steps."""
ANOMALY_SPAN_S: Final = 14 * 86_400.0
"""No more of a service is held than this."""
SIGMA_WINDOW_S: Final = 86_400.0
YEAR_S: Final = 365 * 86_400.0
GAUGES: Final = (Metric.WORKERS_MISSING, Metric.UNSERVABLE, Metric.QUALITY_DRIFT)
"""Known of this moment only."""
LEAST_KNOWN: Final = 0.5
"""Of a window; what was watched for less says nothing."""
LEAST_SLOPE_SIGMAS: Final = 3.0
"""A line less steep than so many of its standard errors goes nowhere."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Of an SLA: the share of requests that may fail, and over which time."""

    share: float
    window_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Tier:
    """One pair of windows: `share` of the budget used up within `long_s` is too much."""

    long_s: float
    short_s: float
    share: float
    severity: AlertSeverity
    slow: bool = False

    def rate(self, budget: Budget) -> float:
        """How many times faster than sustainable."""
        return self.share * budget.window_s / self.long_s


TIERS: Final = (
    Tier(3600.0, 300.0, 0.02, AlertSeverity.P0),
    Tier(6 * 3600.0, 1800.0, 0.05, AlertSeverity.P0),
    Tier(86_400.0, 7200.0, 0.10, AlertSeverity.P2, slow=True),
    Tier(3 * 86_400.0, 6 * 3600.0, 0.10, AlertSeverity.P2, slow=True),
)
"""The Site Reliability Workbook, chapter 5, table 5-8: of 30 days, burn rates of 14.4, 6, 3 and 1."""


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What is known of one InferenceService. Counts end with the last step that is complete."""

    namespace: str
    name: str
    fine: Counts | None = None
    coarse: Counts | None = None
    gauges: Mapping[Metric, float] = field(default_factory=dict)
    budget: Budget | None = None
    improbability: Mapping[Metric, tuple[float, float]] = field(default_factory=dict)
    """Of the last coarse step of a metric: value − what is usual, and how improbable that is (−log10 p)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """`broken` is None when too little is known."""

    broken: bool | None
    message: str
    severity: AlertSeverity
    window: str | None = None


def tiers_of(rule: BurnRate, budget: Budget) -> list[Tier]:
    """Those that can fire: a window shorter than the SLA's, and a rate that failing requests can reach."""
    return [
        tier
        for tier in TIERS
        if (rule.slow or not tier.slow) and tier.long_s < budget.window_s and tier.rate(budget) * budget.share <= 1.0
    ]


def readings(rule: AlertRule, facts: ServiceFacts) -> Iterator[Reading]:
    """One, or of a burn rate one for each pair of windows."""
    if rule.burn_rate is not None:
        if facts.budget is not None:
            for tier in tiers_of(rule.burn_rate, facts.budget):
                yield _burn(tier, facts, facts.budget)
        return
    assert rule.metric is not None, "the schema asks for a metric"
    if rule.threshold is not None:
        yield _threshold(rule.threshold, rule.metric, facts, rule.severity)
    elif rule.trend is not None:
        yield _trend(rule.trend, rule.metric, facts, rule.severity)
    elif rule.anomaly is not None:
        yield _anomaly(rule.anomaly, rule.metric, facts, rule.severity)


# --- metrics --------------------------------------------------------------------------------------------------------
def values(metric: Metric, counts: Counts) -> Array:
    """(n,) the metric of each step; NaN is a gap. Of no requests, none failed."""
    if metric is Metric.FAILURES:
        failed = np.maximum(counts.arrivals - counts.completed, 0.0)
        return np.where(counts.arrivals > 0, failed / np.maximum(counts.arrivals, 1e-9), 0.0 * counts.arrivals)
    column = {
        Metric.REQUESTS: counts.arrivals,
        Metric.ANSWERED: counts.completed,
        Metric.INPUT_TOKENS: counts.input_tokens,
        Metric.OUTPUT_TOKENS: counts.output_tokens,
    }[metric]
    return column / counts.step_s


def failed_share(counts: Counts | None, window_s: float, least_known: float) -> float | None:
    """Of the requests of the last `window_s`; None when too little of it was watched."""
    arrivals, completed = _last(counts, window_s, "arrivals"), _last(counts, window_s, "completed")
    if arrivals is None or completed is None or np.isnan(arrivals).mean() > 1.0 - least_known:
        return None
    came = float(np.nansum(arrivals))
    return max(0.0, came - float(np.nansum(completed))) / came if came else 0.0


def _last(counts: Counts | None, window_s: float, column: str) -> Array | None:
    if counts is None:
        return None
    return _tail(getattr(counts, column), window_s, counts.step_s)


def counts_for(facts: ServiceFacts, window_s: float) -> Counts | None:
    """In steps that suit the window."""
    return facts.fine if window_s <= FINE_SPAN_S else facts.coarse


def _over(metric: Metric, facts: ServiceFacts, window_s: float) -> float | None:
    """The metric over the last `window_s`."""
    if metric in GAUGES:
        return facts.gauges.get(metric)
    counts = counts_for(facts, window_s)
    if metric is Metric.FAILURES:
        return failed_share(counts, window_s, LEAST_KNOWN)
    series = None if counts is None else _tail(values(metric, counts), window_s, counts.step_s)
    if series is None or np.isnan(series).mean() > 1.0 - LEAST_KNOWN:
        return None
    return float(np.nanmean(series))


def _tail(series: Array, window_s: float, step_s: float) -> Array:
    n = max(1, round(window_s / step_s))
    tail = series[-n:]
    # What lies before the history is a gap, too.
    return np.concatenate((np.full(n - len(tail), np.nan), tail))


def _held_s(over: str) -> float:
    """As much of a window as is held. The schema refuses longer ones; policies from before it asked may have them."""
    return min(seconds(over), ANOMALY_SPAN_S)


# --- the four kinds of rules ----------------------------------------------------------------------------------------
def _threshold(asked: Threshold, metric: Metric, facts: ServiceFacts, severity: AlertSeverity) -> Reading:
    over_s = _held_s(asked.over)
    value = _over(metric, facts, over_s)
    if value is None:
        return Reading(None, f"{metric.value} of {facts.name} is not known", severity)
    above, bound = asked.above is not None, float(quantity(asked.above or asked.below or "0"))
    broken = value > bound if above else value < bound
    sign = (">" if above else "<") if broken else ("≤" if above else "≥")
    over = "" if metric in facts.gauges else f" over {duration_text(over_s)}"
    return Reading(broken, f"{metric.value} of {facts.name}{over}: {value:.4g} {sign} {bound:g}", severity)


def _burn(tier: Tier, facts: ServiceFacts, budget: Budget) -> Reading:
    window = duration_text(tier.long_s)
    # A service that is younger than the long window burns in what there is of it, as in Prometheus.
    long = failed_share(counts_for(facts, tier.long_s), tier.long_s, 1e-9)
    short = failed_share(counts_for(facts, tier.short_s), tier.short_s, LEAST_KNOWN)
    limit = tier.rate(budget)
    if long is None or short is None:
        return Reading(None, f"the requests of the last {window} are not known", tier.severity, window)
    message = (
        f"{facts.name} burns its error budget ({budget.text}) {long / budget.share:.1f} times too fast over {window}"
        f" and {short / budget.share:.1f} times over {duration_text(tier.short_s)}; the limit is {limit:.3g}"
    )
    return Reading(min(long, short) > limit * budget.share, message, tier.severity, window)


def _trend(asked: Trend, metric: Metric, facts: ServiceFacts, severity: AlertSeverity) -> Reading:
    over_s, within_s = _held_s(asked.over), seconds(asked.within)
    counts = counts_for(facts, over_s)
    series = None if counts is None else _tail(values(metric, counts), over_s, counts.step_s)
    if counts is None or series is None or (~np.isnan(series)).sum() < max(4, LEAST_KNOWN * len(series)):
        return Reading(None, f"{metric.value} of {facts.name} is not known for {duration_text(over_s)}", severity)
    above, bound = asked.above is not None, float(quantity(asked.above or asked.below or "0"))
    level, slope, error = line(series, counts.step_s)
    left_s = time_to(bound, level, slope, error, above=above)
    way = f"{metric.value} of {facts.name} is {level:.4g} and changes by {slope * 3600:+.3g} an hour"
    if left_s is None:
        return Reading(False, f"{way}: it does not come to {bound:g}", severity)
    reached = "has passed" if left_s == 0 else "comes to"
    when = "" if left_s == 0 else f" in {duration_text(left_s)}"
    return Reading(left_s <= within_s, f"{way}: it {reached} {bound:g}{when}; {asked.within} is too soon", severity)


def line(series: Array, step_s: float) -> tuple[float, float, float]:
    """Least squares: the level at the end, the slope each second and its standard error."""
    known = np.flatnonzero(~np.isnan(series))
    at_s = (known - (len(series) - 1)) * step_s
    y = series[known]
    spread = float(((at_s - at_s.mean()) ** 2).sum())
    slope = float(((at_s - at_s.mean()) * (y - y.mean())).sum()) / spread
    level = float(y.mean()) - slope * float(at_s.mean())
    residual = y - (level + slope * at_s)
    return level, slope, math.sqrt(float((residual**2).sum()) / max(len(y) - 2, 1) / spread)


def time_to(bound: float, level: float, slope: float, error: float, *, above: bool) -> float | None:
    """Seconds until the line meets the bound; 0 when it has; None when it never does or hardly moves."""
    left = bound - level if above else level - bound
    if left < 0:
        return 0.0
    towards = slope if above else -slope
    if towards <= 0 or towards < LEAST_SLOPE_SIGMAS * error:
        return None
    return left / towards


def _anomaly(asked: Anomaly, metric: Metric, facts: ServiceFacts, severity: AlertSeverity) -> Reading:
    if asked.sigmas is not None:
        return _sigmas(float(quantity(asked.sigmas)), asked.direction, metric, facts, severity)
    assert asked.false_alarms is not None, "the schema asks for one of the two"
    found = facts.improbability.get(metric)
    if found is None:
        return Reading(None, f"{metric.value} of {facts.name} has too little history", severity)
    away, score = found
    limit = math.log10(YEAR_S / COARSE_S / asked.false_alarms)
    message = (
        f"{metric.value} of {facts.name} is {away:+.4g} from the usual: once in {10**score:,.0f} steps of"
        f" {duration_text(COARSE_S)}; {10**limit:,.0f} is an anomaly"
    )
    return Reading(score >= limit and _side(away, asked.direction), message, severity)


def _sigmas(k: float, side: Direction, metric: Metric, facts: ServiceFacts, severity: AlertSeverity) -> Reading:
    counts = facts.coarse
    series = None if counts is None else _tail(values(metric, counts), SIGMA_WINDOW_S + COARSE_S, counts.step_s)
    if series is None or np.isnan(series[-1]) or np.isnan(series[:-1]).mean() > 1.0 - LEAST_KNOWN:
        return Reading(None, f"{metric.value} of {facts.name} has too little history", severity)
    mean, spread = float(np.nanmean(series[:-1])), float(np.nanstd(series[:-1]))
    away = float(series[-1]) - mean
    # A metric that never moved has no spread: any visible change is one, rounding is not.
    limit = k * max(spread, 1e-9 * max(abs(mean), 1e-9))
    message = f"{metric.value} of {facts.name} is {away:+.4g} from the mean of a day; {k:g} σ are {limit:.4g}"
    return Reading(abs(away) > limit and _side(away, side), message, severity)


def _side(away: float, direction: Direction) -> bool:
    return direction is Direction.BOTH or (away > 0) == (direction is Direction.ABOVE)
