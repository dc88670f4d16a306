"""Whether a Model fits a MIG profile and is fast enough there, as arithmetic that a person can check. Pure.

Memory is that of the worker: weights, KV cache and runtime within the share of the slice that it uses. Speed is one
engine step with all requests at once, by a profile measured on such a slice, else by one measured on another slice or
on the whole GPU, scaled by the shares of compute and of memory bandwidth. What is assumed is said in the text.
Never modelled: queues, so that percentiles are those of a worker with no more than these requests; and time for the
host, which a slice does not share out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controllers.plans.carried import simulated
from controllers.plans.mig.geometry import MEDIA, Family, Profile
from crds.model import MeasuredProfile
from forecasting.errors import BadSetting
from forecasting.profile import Profile as Speed

WORKER_SHARE: Final = 0.9
"""Of a slice's memory: `--gpu-memory-utilization`, as the worker has it when nothing else is said."""
ONE_GPU: Final = "gpu 1"
RUNTIME_BYTES: Final = 1e9
"""Assumed: CUDA context, libraries, and the activations of the largest step."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one worker has to hold, and how fast."""

    weights_bytes: int
    requests: int
    tokens: int
    """Of one request, prompt and completion, at its end; half of them are its prompt."""
    kv_cache_bytes: int | None
    """As the spec says it; None where the engine takes what is left."""
    assumed_kv_share: float
    """KV cache of one token in bytes of the weights', where nothing was measured."""
    ttft_s: float | None
    tpot_s: float | None


@dataclass(frozen=True, slots=True)
class Source:
    """A measured profile and the part of a GPU that it was measured on."""

    speed: Speed
    compute: float
    memory: float
    gigabytes: int


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether it does, and the arithmetic: of what does not fit, else of everything."""

    fits: bool
    text: str


def sources(measured: Iterable[MeasuredProfile], family: Family, *, sole: bool) -> list[Source]:
    """What was measured on this family. `gpu 1` names no family: it counts where there is but one (`sole`)."""
    found = []
    for one in measured:
        place = _place(one.accelerator, family, sole=sole)
        try:
            speed = simulated(one)
        except BadSetting:
            continue  # No numbers that anything follows from.
        if place is not None:
            found.append(Source(speed, *place))
    return found


def may_count(accelerator: str) -> bool:
    """Whether anything may follow from it: several GPUs also measure how they talk to each other."""
    return accelerator == ONE_GPU or accelerator.startswith("mig ")


def _place(accelerator: str, family: Family, *, sole: bool) -> tuple[float, float, int] | None:
    if accelerator == ONE_GPU:
        return (1.0, 1.0, family.gigabytes) if sole else None
    kind, _, name = accelerator.partition(" ")
    slice_ = family.profile(name.replace(".me", MEDIA)) if kind == "mig" else None
    return None if slice_ is None else (*shares(family, slice_), slice_.gigabytes)


def shares(family: Family, slice_: Profile) -> tuple[float, float]:
    """Of the whole GPU's compute and of its memory, and so of its memory bandwidth."""
    return slice_.compute / family.compute, slice_.memory / family.memory


def fit(family: Family, slice_: Profile, work: Work, measured: Sequence[Source]) -> Fit:
    """Memory first: what does not fit is not fast either."""
    compute, memory = shares(family, slice_)
    source = min(measured, key=lambda one: _distance(one, compute, memory), default=None)
    held = _memory(slice_, work, source)
    if not held.fits:
        return held
    if work.ttft_s is None and work.tpot_s is None:
        return Fit(True, f"{held.text}; no target for TTFT or TPOT")
    if source is None:
        return Fit(True, f"{held.text}; TTFT and TPOT not judged: not measured on these GPUs yet")
    fast = _fast_enough(_scaled(source, compute, memory), work)
    how = _how(source, compute, memory)
    return Fit(fast.fits, f"{held.text}; {fast.text} ({how})" if fast.fits else f"{fast.text} ({how})")


def _distance(source: Source, compute: float, memory: float) -> tuple[float, str]:
    return abs(source.compute - compute) + abs(source.memory - memory), source.speed.accelerator


def _memory(slice_: Profile, work: Work, source: Source | None) -> Fit:
    usable = WORKER_SHARE * slice_.gigabytes * 1e9
    kv, how = _kv_bytes(work, source)
    needed = work.weights_bytes + kv + RUNTIME_BYTES
    return Fit(
        needed <= usable,
        f"{_gb(work.weights_bytes)} weights + {_gb(kv)} KV for {work.requests} requests ({how}) + {_gb(RUNTIME_BYTES)}"
        f" runtime {'≤' if needed <= usable else '>'} {_gb(usable)}",
    )


def _kv_bytes(work: Work, source: Source | None) -> tuple[float, str]:
    if work.kv_cache_bytes is not None:
        return work.kv_cache_bytes, "engine.kvCache"
    tokens = work.requests * work.tokens
    each = work.assumed_kv_share * work.weights_bytes
    if source is not None:
        # The engine gave all that was left to the cache; where it was told to take less, this asks for too much.
        left = WORKER_SHARE * source.gigabytes * 1e9 - work.weights_bytes - RUNTIME_BYTES
        if left > 0:
            return tokens * left / source.speed.kv_tokens, f"{work.tokens} tokens each, by {source.speed.accelerator}"
    return tokens * each, f"{work.tokens} tokens each, {each / 1e3:.3g} kB a token assumed"


def _scaled(source: Source, compute: float, memory: float) -> Speed:
    """Steps bound by arithmetic grow with the share of compute, those bound by memory with that of its bandwidth."""
    less_compute, less_memory = source.compute / compute, source.memory / memory
    one = source.speed
    return replace(
        one,
        alpha_s=one.alpha_s * less_memory,
        gamma_s=one.gamma_s * less_memory,
        beta_s=one.beta_s * less_compute,
        delta_s=one.delta_s * less_compute,
    )


def _fast_enough(speed: Speed, work: Work) -> Fit:
    tokens = work.requests * work.tokens
    tpot_s = speed.iteration_s(work.requests, 0, tokens)
    prompt = max(work.tokens // 2, 1)
    steps = math.ceil(prompt / max(speed.chunk_tokens - work.requests, 1))
    ttft_s = steps * speed.iteration_s(work.requests - 1, prompt / steps, tokens) + speed.request_s
    parts = [
        Fit(found <= target, f"{name} {1e3 * found:.3g} ms {'≤' if found <= target else '>'} {1e3 * target:.6g} ms")
        for name, found, target in (("TTFT", ttft_s, work.ttft_s), ("TPOT", tpot_s, work.tpot_s))
        if target is not None
    ]
    fits = all(one.fits for one in parts)
    said = " and ".join(one.text for one in parts if one.fits == fits)
    return Fit(fits, f"{said} with {work.requests} requests")


def _how(source: Source, compute: float, memory: float) -> str:
    name = source.speed.accelerator
    if (source.compute, source.memory) == (compute, memory):
        return f"measured on {name}"
    return f"{name} scaled: compute × {compute / source.compute:.3g}, bandwidth × {memory / source.memory:.3g}"


def _gb(amount: float) -> str:
    return f"{amount / 1e9:.3g} GB"
