"""The rules of a policy for a real Prometheus: the same questions in PromQL, with the same labels on the answers.

Same labels, same fingerprint: where the operator and a Prometheus watch the same policy, there is one alert. What
PromQL cannot say (a calibrated anomaly) is asked of the operator's own gauge, which has the score.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from controllers.plans.alerting.alerts import NAMESPACE, POLICY, SERVICE, SEVERITY, WINDOW
from controllers.plans.alerting.readings import COARSE_S, YEAR_S, Budget, Tier, tiers_of
from controllers.plans.units import duration_text
from crds import contract
from crds.alert_policy import AlertPolicySpec, AlertRule, Anomaly, Direction, Metric, Trend
from crds.fields import quantity, seconds

Json = dict[str, Any]

_BY: Final = f"by ({NAMESPACE}, {SERVICE})"
_COUNTERS: Final = {
    Metric.REQUESTS: contract.METRIC_GATEWAY_ARRIVALS,
    Metric.ANSWERED: contract.METRIC_GATEWAY_COMPLETED,
    Metric.INPUT_TOKENS: contract.METRIC_GATEWAY_INPUT_TOKENS,
    Metric.OUTPUT_TOKENS: contract.METRIC_GATEWAY_OUTPUT_TOKENS,
}
_GAUGES: Final = {
    Metric.WORKERS_MISSING: contract.METRIC_SERVICE_WORKERS_MISSING,
    Metric.UNSERVABLE: contract.METRIC_SERVICE_UNSERVABLE,
    Metric.QUALITY_DRIFT: contract.METRIC_SERVICE_QUALITY_DRIFT,
}


def groups(namespace: str, policy: str, spec: AlertPolicySpec, budgets: Mapping[str, Budget]) -> Json:
    """The body of a rule file, and of a PrometheusRule. `budgets` are by service, for burn rates."""
    rules = [out for rule in spec.alert_rules or () for out in _rules(namespace, policy, spec, rule, budgets)]
    return {"groups": [{"name": f"foretide.{namespace}.{policy}", "interval": spec.interval, "rules": rules}]}


def _rules(
    namespace: str, policy: str, spec: AlertPolicySpec, rule: AlertRule, budgets: Mapping[str, Budget]
) -> Iterator[Json]:
    where = _selector(namespace, spec.services)
    if rule.burn_rate is None:
        yield _rule(policy, rule, expression(rule, where), rule.severity.value)
        return
    for service, budget in sorted(budgets.items()):
        for tier in tiers_of(rule.burn_rate, budget):
            query = burn(tier, budget, _selector(namespace, [service]))
            window = {WINDOW: duration_text(tier.long_s)}
            yield _rule(policy, rule, query, tier.severity.value, window)


def _rule(policy: str, rule: AlertRule, query: str, severity: str, more: Mapping[str, str] | None = None) -> Json:
    labels = {**(rule.labels or {}), POLICY: policy, SEVERITY: severity, **(more or {})}
    annotations = {
        "summary": _literal(rule.summary or f"{rule.name} of") + " {{ $labels.namespace }}/{{ $labels.service }}",
        "description": f"{rule.name} of {{{{ $labels.namespace }}}}/{{{{ $labels.service }}}}: {{{{ $value }}}}",
    }
    if rule.runbook:
        annotations["runbook"] = _literal(rule.runbook)
    out: Json = {"alert": rule.name, "expr": query}
    if rule.for_:
        out["for"] = rule.for_
    if rule.keep_firing:
        out["keep_firing_for"] = rule.keep_firing
    return out | {"labels": {name: _literal(value) for name, value in labels.items()}, "annotations": annotations}


def _literal(text: str) -> str:
    """A person's text is no template: it could read any metric of that Prometheus."""
    return text.replace("{{", '{{ "{{" }}') if "{{" in text else text


def _selector(namespace: str, services: Sequence[str] | None) -> str:
    """Names of Kubernetes objects hold nothing that a regular expression or a string treats specially."""
    labels = f'{NAMESPACE}="{namespace}"'
    if services is None:
        return labels
    only = "|".join(services)
    return f'{labels},{SERVICE}="{only}"' if len(services) == 1 else f'{labels},{SERVICE}=~"{only}"'


def expression(rule: AlertRule, where: str) -> str:
    """PromQL that has a value for each service that is in trouble."""
    metric = rule.metric
    assert metric is not None, "the schema asks for a metric"
    if rule.threshold is not None:
        return f"{value(metric, where, rule.threshold.over)} {_beyond(rule.threshold.above, rule.threshold.below)}"
    if rule.trend is not None:
        return _trend(rule.trend, metric, where)
    assert rule.anomaly is not None, "the schema asks for one of the kinds"
    return _anomaly(rule.anomaly, metric, where)


def value(metric: Metric, where: str, over: str) -> str:
    """The metric over the last while."""
    if metric in _GAUGES:
        return f"max {_BY} ({_GAUGES[metric]}{{{where}}})"
    if metric is Metric.FAILURES:
        return f"({failed_share(where, over)})"
    return f"sum {_BY} (rate({_COUNTERS[metric]}{{{where}}}[{over}]))"


def failed_share(where: str, over: str) -> str:
    came, answered = (
        f"sum {_BY} (increase({name}{{{where}}}[{over}]))"
        for name in (contract.METRIC_GATEWAY_ARRIVALS, contract.METRIC_GATEWAY_COMPLETED)
    )
    return f"clamp_min(1 - {answered} / {came}, 0)"


def burn(tier: Tier, budget: Budget, where: str) -> str:
    """Both windows beyond the limit."""
    limit = f"{tier.rate(budget) * budget.share:.6g}"
    long, short = (failed_share(where, duration_text(one)) for one in (tier.long_s, tier.short_s))
    return f"{long} > {limit} and {short} > {limit}"


def _beyond(above: str | None, below: str | None) -> str:
    return f"> {_number(above)}" if above is not None else f"< {_number(below or '0')}"


def _number(text: str) -> str:
    return f"{float(quantity(text)):.15g}"


def _trend(asked: Trend, metric: Metric, where: str) -> str:
    series = value(metric, where, "5m")
    ahead = f"predict_linear({series}[{asked.over}:1m], {seconds(asked.within):g})"
    return f"{ahead} {_beyond(asked.above, asked.below)}"


def _anomaly(asked: Anomaly, metric: Metric, where: str) -> str:
    if asked.false_alarms is not None:
        limit = math.log10(YEAR_S / COARSE_S / asked.false_alarms)
        side = {Direction.ABOVE: ',direction="above"', Direction.BELOW: ',direction="below"'}.get(asked.direction, "")
        labels = f'{where},metric="{metric.value}"{side}'
        return f"max {_BY} ({contract.METRIC_ANOMALY}{{{labels}}}) >= {limit:.6g}"
    series = value(metric, where, "10m")
    past = f"{series}[1d:10m]"
    away = f"({series} - avg_over_time({past} offset 10m))"
    if asked.direction is Direction.BOTH:
        away = f"abs{away}"
    elif asked.direction is Direction.BELOW:
        away = f"-{away}"
    return f"{away} > {_number(asked.sigmas or '0')} * stddev_over_time({past} offset 10m)"
