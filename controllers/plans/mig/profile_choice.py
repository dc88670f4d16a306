"""Which MIG profile `profile: auto` stands for: the smallest that fits, and why each smaller one does not. Pure.

A choice stands until what it follows from changes: the Model, the targets, concurrency and engine settings of the
spec, a smaller profile that pools offer now, the chosen one that none offers any more, or a first measurement of the
Model on one accelerator more. New numbers of the same accelerator do not count, nor do lengths of requests; so no noise
swings it to and fro, and each change of it, which is a new revision, has a cause that a person can name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controllers.plans.mig.geometry import MEDIA
from controllers.plans.mig.offers import Offer
from controllers.plans.mig.profile_fit import Fit, Work, fit, may_count, sources
from crds.fields import quantity, seconds
from crds.inference_service import InferenceServiceSpec, RefusedProfile, SliceChoice
from crds.model import MeasuredProfile, ModelFormat
from crds.scaling import Scaling
from crds.sla import Targets

TOKENS: Final = 2048
"""Assumed of one request where `engine.maxModelLen` does not bound it."""
REQUESTS: Final[int] = Scaling.model_fields["target_concurrency"].default
"""Assumed of a service that does not scale and says no `engine.maxNumSeqs`."""
KV_SHARES: Final = {ModelFormat.SAFETENSORS: 1e-5, ModelFormat.GGUF: 3e-5}
"""Assumed KV cache of a token in bytes of the weights' (16 bits and grouped queries; quantised weights are fewer)."""
_REASON_LENGTH: Final = 1024
_MOST_REFUSED: Final = 64
"""What the status holds, as its schema says."""


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """What a choice follows from, beside spec and targets."""

    model: str
    """Its uid: another Model of the same name is another."""
    size_bytes: int | None
    format: ModelFormat | None
    measured: tuple[MeasuredProfile, ...]
    offers: tuple[Offer, ...]
    targets_known: bool = True
    """False while the SLA that the spec names is not there."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the status should say; and what is in the way of new workers, as reason and message."""

    status: SliceChoice | None
    reason: str = ""
    message: str = ""
    needs_person: bool = True


def choose(
    spec: InferenceServiceSpec, targets: Targets | None, facts: SliceFacts, before: SliceChoice | None
) -> Choice:
    """The choice that stands, else a new one. What cannot be known now takes no earlier choice away."""
    lacking = _lacking(spec, facts)
    if before is not None and before.profile and (lacking or not facts.targets_known):
        return _stands(before)
    if lacking:
        return lacking
    work = _work(spec, targets, facts)
    inputs = _fingerprint(work, facts)
    if before is not None and before.inputs == inputs and _all_judged(before, facts.offers):
        return _stands(before)
    made = _smallest(facts, work, inputs)
    if not made.fits and before is not None:
        made = made.model_copy(update={"profile": before.profile})  # Its workers serve on and count on.
    return _stands(made)


def _stands(made: SliceChoice) -> Choice:
    return Choice(made) if made.fits else Choice(made, "NoSliceFits", made.reason)


def _all_judged(before: SliceChoice, offers: Iterable[Offer]) -> bool:
    """Whether what is offered now holds nothing that the choice would have to look at again."""
    names = [_said(name) for name in _candidates(offers)]
    if before.fits:
        if before.profile not in names:
            return False
        names = names[: names.index(before.profile)]
    return {one.profile for one in before.smaller or ()}.issuperset(names)


def _lacking(spec: InferenceServiceSpec, facts: SliceFacts) -> Choice | None:
    if not any(offer.profiles for offer in facts.offers):
        return Choice(
            None,
            "NoSlicesOffered",
            "No GPUPool has a node that the service's nodeSelector matches and whose GPUs can be cut; make a GPUPool,"
            " or name a profile instead of auto.",
        )
    if not facts.size_bytes:
        return Choice(
            None,
            "ModelSizeUnknown",
            f"Model '{spec.model}' has no status.sizeBytes yet, from which the profile follows; wait for its copy, or"
            " name a profile instead of auto.",
            needs_person=False,
        )
    return None


def _smallest(facts: SliceFacts, work: Work, inputs: str) -> SliceChoice:
    refused: list[RefusedProfile] = []
    for name in _candidates(facts.offers):
        verdict = _judge(name, facts, work)
        text = f"{_said(name)}: {verdict.text}"[:_REASON_LENGTH]
        if verdict.fits:
            smaller = refused[:_MOST_REFUSED] or None
            return SliceChoice(profile=_said(name), fits=True, inputs=inputs, reason=text, smaller=smaller)
        refused.append(RefusedProfile(profile=_said(name), reason=text))
    largest = refused[-1].reason
    message = f"None of {len(refused)} profiles fits; the largest is {largest}. Allow larger ones, relax the SLA, or"
    message += " lower the concurrency or engine.maxModelLen."
    return SliceChoice(fits=False, inputs=inputs, reason=message, smaller=refused[:_MOST_REFUSED])


def _candidates(offers: Iterable[Offer]) -> list[str]:
    """Names, the smallest first: by memory, then compute; media engines are given away last."""
    found = {one.name: one for offer in offers for one in offer.profiles}
    return sorted(found, key=lambda name: (found[name].gigabytes, found[name].compute, found[name].media))


def _judge(name: str, facts: SliceFacts, work: Work) -> Fit:
    """On each family that offers it: the scheduler may take either, so it must fit all."""
    families = {offer.family.name: offer.family for offer in facts.offers}
    verdicts = []
    for offer in facts.offers:
        slice_ = next((one for one in offer.profiles if one.name == name), None)
        if slice_ is not None:
            measured = sources(facts.measured, offer.family, sole=len(families) == 1)
            verdicts.append(fit(offer.family, slice_, work, measured))
    return next((one for one in verdicts if not one.fits), verdicts[0])


def _work(spec: InferenceServiceSpec, targets: Targets | None, facts: SliceFacts) -> Work:
    assert facts.size_bytes, "checked by `_lacking`"
    engine = spec.engine
    return Work(
        weights_bytes=facts.size_bytes,
        requests=_requests(spec),
        tokens=engine.max_model_len or TOKENS,
        kv_cache_bytes=None if engine.kv_cache is None else int(quantity(engine.kv_cache)),
        assumed_kv_share=KV_SHARES[facts.format or ModelFormat.GGUF],
        ttft_s=seconds(targets.ttft) if targets and targets.ttft else None,
        tpot_s=seconds(targets.tpot) if targets and targets.tpot else None,
    )


def _requests(spec: InferenceServiceSpec) -> int:
    """At once on one worker; the engine never runs more than its own limit."""
    limit = spec.engine.max_num_seqs
    wanted = spec.scaling.target_concurrency if spec.scaling else limit or REQUESTS
    return min(wanted, limit) if limit else wanted


def _fingerprint(work: Work, facts: SliceFacts) -> str:
    """Of all that a choice follows from but the offers; of what was measured only where."""
    measured = {one.accelerator for one in facts.measured if may_count(one.accelerator)}
    needs = (work.weights_bytes, work.requests, work.tokens, work.kv_cache_bytes, work.ttft_s, work.tpot_s)
    text = json.dumps([facts.model, facts.format, needs, sorted(measured)])
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _said(name: str) -> str:
    """As specs and resource names write it."""
    return name.replace(MEDIA, ".me")
