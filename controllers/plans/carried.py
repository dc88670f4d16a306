"""What one worker carries: as a person says, else what keeps the SLA's targets by its profile, else as learned.

Pure. A profile (`Model.status.profiles`) and the mean lengths of the service's requests give the highest rate at which
the wanted share of requests meets TTFT and TPOT; the simulator finds it, so that what is planned is what is simulated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from controllers.plans.capacity import INPUT_WEIGHT, UNBOUNDED_WORK_PER_S, accelerator_text
from crds.fields import seconds
from crds.inference_service import InferenceServiceSpec
from crds.model import MeasuredProfile
from crds.sla import Targets
from forecasting.capacity import best_rate
from forecasting.errors import BadSetting
from forecasting.policy import KV_USE, Capacity
from forecasting.profile import Profile
from forecasting.simulator.arrivals import lengths_around
from forecasting.simulator.world import Slo

LEARNED: Final = "seen at work"
UNKNOWN: Final = "not known yet"
SAID: Final = "as the spec says"
LEAST_REQUESTS: Final = 20.0
"""Answered ones, below which their mean lengths say little."""


@dataclass(frozen=True, slots=True)
class MeanLengths:
    """Tokens of a service's mean request, in two digits: so few that most services share what follows from them."""

    input: float
    output: float

    @classmethod
    def of(cls, requests: float, input_tokens: float, output_tokens: float) -> MeanLengths | None:
        """None of too few requests."""
        if requests < LEAST_REQUESTS:
            return None
        each = (max(input_tokens / requests, 1.0), max(output_tokens / requests, 1.0))
        return cls(*(float(f"{value:.1e}") for value in each))


@dataclass(frozen=True, slots=True)
class Known:
    """All that the capacity of a worker follows from, beside the service's own spec."""

    targets: Targets | None = None
    profile: MeasuredProfile | None = None
    lengths: MeanLengths | None = None
    learned_work_per_s: float | None = None


NOTHING_KNOWN: Final = Known()


@dataclass(frozen=True, slots=True)
class Carried:
    """Weighted tokens each second, None while nobody knows; the requests that a worker may hold; and why so much."""

    work_per_s: float | None
    running: float
    because: str

    def for_policy(self) -> Capacity:
        """As `forecasting.policy.plan` takes it."""
        work_per_s = UNBOUNDED_WORK_PER_S if self.work_per_s is None else self.work_per_s
        return Capacity(work_per_s, self.running, KV_USE, INPUT_WEIGHT, 1.0, self.because)


def carried(spec: InferenceServiceSpec, known: Known) -> Carried:
    """A person's number wins. Without targets, or where no load would meet them, it is what was learned."""
    assert spec.scaling is not None, "only services that scale have a capacity"
    running = float(spec.scaling.target_concurrency)
    if spec.scaling.tokens_per_second:
        return Carried(float(spec.scaling.tokens_per_second), running, SAID)
    doubt = ""
    slo = slo_of(known.targets)
    if slo is not None and known.profile is not None and known.lengths is not None:
        most = _most(known.profile, known.lengths, slo)
        if most is not None:
            return within(slo, *most, known.lengths, running)
        doubt = f"; no load would keep {_targets(slo)} for requests of {_lengths(known.lengths)}"
    because = LEARNED if known.learned_work_per_s else UNKNOWN
    return Carried(known.learned_work_per_s, running, because + doubt)


def within(slo: Slo, requests_per_s: float, held: float, lengths: MeanLengths, running: float) -> Carried:
    """What a worker carries within its targets, in the measure in which histories are kept, at the highest rate that
    meets them, when it holds so many requests."""
    work_per_s = requests_per_s * (INPUT_WEIGHT * lengths.input + lengths.output)
    because = (
        f"{requests_per_s:.3g} requests/s × ({lengths.output:.3g} output + {INPUT_WEIGHT:g} × {lengths.input:.3g}"
        f" input tokens), the most with {_targets(slo)} for {slo.attainment:.0%}"
    )
    return Carried(work_per_s, max(min(running, held), 1.0), because)


def slo_of(targets: Targets | None) -> Slo | None:
    """None where no target bounds what a worker may carry. An end-to-end target does not: it is a matter of length."""
    if targets is None or (targets.ttft is None and targets.tpot is None):
        return None
    ttft_s, tpot_s = (math.inf if one is None else seconds(one) for one in (targets.ttft, targets.tpot))
    return Slo(ttft_s, tpot_s, targets.percentile / 100)


def follows_from_lengths(spec: InferenceServiceSpec, known: Known) -> bool:
    """Whether it would be another number if the lengths of the requests were known, or were not."""
    assert spec.scaling is not None, "only services that scale have a capacity"
    return not spec.scaling.tokens_per_second and slo_of(known.targets) is not None and known.profile is not None


def known_of(
    spec: InferenceServiceSpec,
    model: Mapping[str, Any] | None,
    sla: Mapping[str, Any] | None,
    lengths: MeanLengths | None,
    learned_work_per_s: float | None,
) -> Known:
    """From the Model and the SLA as JSON, and what was measured."""
    return Known(targets_in(sla), profile_in(model, spec), lengths, learned_work_per_s)


def targets_in(sla: Mapping[str, Any] | None) -> Targets | None:
    """Of an SLA as JSON."""
    said = (sla or {}).get("spec", {}).get("targets")
    return Targets.model_validate(said) if said else None


def profile_in(model: Mapping[str, Any] | None, spec: InferenceServiceSpec) -> MeasuredProfile | None:
    """Of a Model as JSON: how fast it is on the service's accelerator."""
    wanted = accelerator_text(spec.accelerator)
    for one in ((model or {}).get("status") or {}).get("profiles") or ():
        if one.get("accelerator") == wanted:
            return MeasuredProfile.model_validate(one)
    return None


@lru_cache(maxsize=4096)
def _most(profile: MeasuredProfile, lengths: MeanLengths, slo: Slo) -> tuple[float, float] | None:
    """Requests each second, and held; None where no load meets the targets, which is remembered too."""
    try:
        return best_rate(simulated(profile), lengths_around(lengths.input, lengths.output), slo)
    except BadSetting:
        return None


def simulated(profile: MeasuredProfile) -> Profile:
    """As `forecasting` has it. Raises: BadSetting."""
    times = (profile.alpha_us, profile.beta_us, profile.gamma_us, profile.delta_us, profile.request_us)
    alpha_s, beta_s, gamma_s, delta_s, request_s = (1e-6 * float(one) for one in times)
    return Profile(
        model="the Model",
        accelerator=profile.accelerator,
        alpha_s=alpha_s,
        beta_s=beta_s,
        gamma_s=gamma_s,
        delta_s=delta_s,
        request_s=request_s,
        kv_tokens=profile.kv_tokens,
        max_sequences=profile.max_sequences,
        chunk_tokens=profile.chunk_tokens,
    )


def _targets(slo: Slo) -> str:
    said = [f"TTFT ≤ {slo.ttft_s:g} s"] * math.isfinite(slo.ttft_s)
    said += [f"TPOT ≤ {slo.tpot_s * 1e3:g} ms"] * math.isfinite(slo.tpot_s)
    return " and ".join(said)


def _lengths(lengths: MeanLengths) -> str:
    return f"{lengths.input:.3g} + {lengths.output:.3g} tokens"
