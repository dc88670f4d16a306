"""What ends a rollout: a candidate that cannot live, guardrails, wrong answers, and tests that say it is worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controllers.plans.canary.evidence import share
from controllers.plans.canary.samples import BOUNDS, median
from controllers.plans.canary.values import CanaryInput
from controllers.plans.canary.verdicts import Judgement, seconds_text
from controllers.plans.times import seconds_since
from crds.fields import seconds
from crds.rollout import RolloutMetric, RolloutPhase

FEWEST: Final = 20
"""Requests in the last minute from which on a guardrail speaks."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a rollout must not go on."""

    reason: str
    message: str


def find_stop(seen: CanaryInput, phase: RolloutPhase, judgement: Judgement) -> Stop | None:
    """The first thing, in the order of how certain it is. Once a person has promoted, nothing stops it any more."""
    return _cannot_live(seen, phase) or guardrail(seen) or _wrong_answers(seen) or _is_worse(judgement)


def _cannot_live(seen: CanaryInput, phase: RolloutPhase) -> Stop | None:
    if seen.crash:
        return Stop("CandidateBroken", seen.crash.rstrip("."))
    limit = seen.spec.limits.ready_timeout
    state, is_remembered = seen.state(seen.target), seen.memory is not None and seen.memory.candidate == seen.target
    since = seen.memory.since if seen.memory and is_remembered else None
    if phase is not RolloutPhase.PREPARING or not state.replicas or seconds_since(since, seen.now_s) < seconds(limit):
        return None
    if not state.ready:
        return Stop("NeverReady", f"no worker was ready within {limit}")
    # An operator that has just taken over has not asked it yet, however long it has been prepared.
    compared = seen.compared
    if compared is not None and compared.outputs is None and compared.asked_s >= seconds(limit):
        return Stop("NeverAnswered", f"it did not answer its first prompts within {limit}")
    return None


def guardrail(seen: CanaryInput) -> Stop | None:
    """Limits that no test has to be asked about."""
    if seen.compared is None:
        return None
    recent, limits = seen.compared.recent, seen.spec.limits
    if recent.requests >= FEWEST and recent.errors > share(limits.errors) * recent.requests:
        found = f"{100 * recent.errors / recent.requests:.0f}% of {recent.requests} requests failed"
        return Stop("ErrorGuardrail", f"{found} within a minute, more than {limits.errors}")
    for metric, limit in ((RolloutMetric.TTFT, limits.ttft), (RolloutMetric.TPOT, limits.tpot)):
        counts = recent.histogram(metric)
        middle = median(counts, BOUNDS[metric])
        if limit and middle is not None and sum(counts) >= FEWEST and middle > seconds(limit):
            found = f"median {metric.value.upper()} of {sum(counts)} requests is {seconds_text(middle)}"
            return Stop(f"{metric.value.capitalize()}Guardrail", f"{found}, more than {limit}")
    return None


def _wrong_answers(seen: CanaryInput) -> Stop | None:
    outputs = seen.compared.outputs if seen.compared else None
    return None if outputs is None or outputs.ok else Stop("OutputsDiffer", outputs.message)


def _is_worse(judgement: Judgement) -> Stop | None:
    if not judgement.worse:
        return None
    return Stop("CandidateWorse", "; ".join(one.message for one in judgement.worse))
