"""Why a service has so many replicas, as arithmetic for a terminal. Pure: a decision is taken apart by the policy's own
functions, and only where they still come to what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from cli import lines
from cli.decisions import changes
from cli.fleet import Service
from cli.status_text import forecast_text, replicas_text
from forecasting.policy import Direction, Policy, ScalingDecision, ScalingInput, plan
from forecasting.policy.limits import bounds_at
from forecasting.policy.need import Need, forecast_need, measured_needs, tokens

Json = dict[str, Any]

_INDENT: Final = 7


def explain_lines(one: Service, decisions: Sequence[ScalingDecision], last: int, now: datetime) -> list[str]:
    """What holds now, then the last changes, newest first. `decisions`: as recorded, oldest first."""
    said = lines.wrapped(heading(one))
    if not decisions:
        return [*said, *_from_status(one, now)]
    changed = changes(decisions)
    shown = changed[:last]
    if not shown or decisions[-1] is not shown[0]:
        shown.insert(0, decisions[-1])
    for each in shown:
        said += decision_lines(each, now)
    if not changed:
        since = lines.later(decisions[0].inputs.now_s, 0, now)
        said.append(f"No other number was asked for since {since}, where the record begins.")
    return said


def heading(one: Service) -> str:
    scaling = one.status.get("scaling") or {}
    policy = scaling.get("policy") or one.spec["scaling"].get("policy", "reactive")
    return f"{one.namespace}/{one.name}: {policy}; {replicas_text(one)} (times are UTC)"


def decision_lines(one: ScalingDecision, now: datetime) -> list[str]:
    """One decision: what, when, and every number that it was made from."""
    given = one.inputs
    head = f"{lines.later(given.now_s, 0, now)}  {_number(one)}  {one.reason.value}"
    if one.direction is Direction.UP:
        head += f", ready by about {lines.later(given.now_s, given.lead_time_s, now)}"
    return [*lines.wrapped(head), *lines.facts([("because", one.message), *_needs(one), *_given(given)], _INDENT)]


def _number(one: ScalingDecision) -> str:
    current = one.inputs.current
    if one.inputs.settings.policy is Policy.ADVISORY:
        return f"{current} replicas held, advice {one.wanted}"
    if one.direction is Direction.HOLD:
        return f"{current} replicas held"
    return f"{current} → {one.replicas} replicas"


def _needs(one: ScalingDecision) -> list[tuple[str, str]]:
    """Everything that asked for replicas, the most first; the largest decides."""
    given, again = one.inputs, plan(one.inputs)
    if given.load is None or (again.wanted, again.message) != (one.wanted, one.message):
        return []
    needs = list(measured_needs(given.load, given.ready, given.capacity, given.settings))
    ahead = forecast_need(given) if given.settings.policy is not Policy.REACTIVE else None
    needs += [ahead] if isinstance(ahead, Need) else []
    needs.sort(key=lambda each: -each.replicas)
    return [(each.reason.value, f"{each.because} = {each.replicas:.2f}") for each in needs]


def _given(given: ScalingInput) -> list[tuple[str, str]]:
    rows = [] if given.load is None else [("measured", _load(given))]
    ahead = _forecast(given)
    rows += [("quantiles", ahead)] if ahead else []
    bounds = bounds_at(given.now_s, given.bounds, given.settings.windows)
    by = f"; {bounds.limited_by}" if bounds.limited_by else ""
    rows.append(("limits", f"{bounds.min_replicas}…{bounds.max_replicas}{by}"))
    rows.append(("lead time", f"a new worker takes {given.lead_time_s:.0f} s"))
    return rows


def _load(given: ScalingInput) -> str:
    load = given.load
    assert load is not None, "asked only where a load was measured"
    return (
        f"{tokens(given.capacity.work_of(load))} of work, {load.requests_per_s:.3g} requests/s, {load.running:.0f}"
        f" running, {load.waiting:.0f} waiting, {load.age_s:.0f} s before; {given.ready} of {given.current} ready"
    )


def _forecast(given: ScalingInput) -> str | None:
    """Its quantiles at the lead time: what a worker ordered now would meet."""
    ahead = given.forecast
    if ahead is None:
        return None
    step = int((given.now_s + given.lead_time_s - ahead.issued_s) // ahead.step_s)
    if not 0 <= step < len(ahead.values):
        return None
    each = (f"p{100 * level:g} {tokens(value)}" for level, value in zip(ahead.levels, ahead.values[step], strict=True))
    return f"at +{given.lead_time_s:.0f} s: {', '.join(each)}"


def _from_status(one: Service, now: datetime) -> list[str]:
    """What the objects say without the record."""
    last = (one.status.get("scaling") or {}).get("lastDecision")
    if last is None:
        return ["No change of the number is on record.", *lines.facts(_expected(one, now))]
    when = lines.moment(last["time"], now)
    head = f"{when}  {last['before']} → {last['after']} replicas  {last['reason']}"
    return [head, *lines.facts([("because", last["message"])], _INDENT), "now", *lines.facts(_expected(one, now), 7)]


def _expected(one: Service, now: datetime) -> list[tuple[str, str]]:
    known = one.expected
    found = [(word, one.condition(type_)) for word, type_ in (("held", "ScalingHeld"), ("limited", "ScalingLimited"))]
    rows = [(word, str(it["message"])) for word, it in found if it is not None and it["status"] == "True"]
    if known.get("load"):
        rows.append(("load", f"{known['load']} tok/s"))
    if known.get("horizons"):
        rows.append(("forecast", forecast_text(known, now)))
    if known.get("limitedBy"):
        rows.append(("limit ahead", known["limitedBy"]))
    if known.get("capacity"):
        rows.append(("one replica carries", f"{known['capacity']} tok/s: {known.get('capacityReason', '')}"))
    if known.get("leadTime"):
        rows.append(("lead time", f"a new worker takes {known['leadTime']}"))
    return rows or [("forecast", "there is none yet")]
