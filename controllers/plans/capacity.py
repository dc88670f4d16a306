"""What a worker was seen to carry, in which measure, and how long a new one takes. Pure; `carried` says what counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from crds.fields import quantity
from crds.inference_service import Accelerator, InferenceServiceSpec

INPUT_WEIGHT: Final = 0.25
"""Of an input token beside an output token: prefill works on many tokens at once, decode reads all weights for few."""
UNBOUNDED_WORK_PER_S: Final = 1e12
"""Where nobody knows what a worker carries: the work rate then never calls for a second one; requests held still do."""
LEAST_LEAD_S: Final = 300.0
_LEAD_PERCENTILE: Final = 0.95
_LEARN_FROM: Final = 0.5
"""Of the target: a worker that holds less says little about a full one."""
_LEARN_SHARE: Final = 0.05
"""Of each new measurement in the average."""


def profile_of(namespace: str, spec: InferenceServiceSpec, model: Mapping[str, Any] | None) -> str:
    """Workers that are alike, as what is learned of them is kept: `demo/llama 6f1c… on gpu 1`. `model` as JSON.

    A Model of that name in another namespace, or a later one in this, may be of any size.
    """
    uid = model["metadata"].get("uid", "") if model else ""
    return f"{namespace}/{spec.model} {uid} on {accelerator_text(spec.accelerator)}"


def workers_text(spec: InferenceServiceSpec) -> str:
    """The same for people: `llama on gpu 1`, `m on mig 1g.10gb`, `m on cpu 0.5`."""
    return f"{spec.model} on {accelerator_text(spec.accelerator)}"


def accelerator_text(accelerator: Accelerator) -> str:
    """`gpu 1`, `mig 1g.10gb`, `shared mps 20gb`, `cpu 0.5`."""
    if accelerator.gpu:
        return f"gpu {accelerator.gpu.count}"
    if accelerator.mig:
        return f"mig {accelerator.mig.profile}"
    if accelerator.shared:
        return f"shared {accelerator.shared.strategy} {accelerator.shared.gigabytes}gb"
    assert accelerator.cpu is not None, "the schema says that exactly one is set"
    return f"cpu {quantity(accelerator.cpu.cores).normalize():f}"


def work_rate(input_tokens_per_s: float, output_tokens_per_s: float) -> float:
    """Weighted tokens each second, as every rate of work is counted."""
    return INPUT_WEIGHT * input_tokens_per_s + output_tokens_per_s


def learn(known: float | None, work_per_s: float, held: float, target: float) -> float | None:
    """The work rate of a worker that holds `target` requests, after one more measurement of one that holds `held`.

    A worker with less than its target would do more with it, at most in proportion; one with more does all it can.
    """
    if held < _LEARN_FROM * target or work_per_s <= 0 or not math.isfinite(work_per_s):
        return known
    measured = work_per_s * max(1.0, target / held)
    return measured if known is None else known + _LEARN_SHARE * (measured - known)


def lead_time_s(cold_starts_s: Sequence[float]) -> float:
    """The 95th percentile of the cold starts (nearest rank), and at least five minutes."""
    if not cold_starts_s:
        return LEAST_LEAD_S
    ordered = sorted(cold_starts_s)
    return max(LEAST_LEAD_S, ordered[math.ceil(_LEAD_PERCENTILE * len(ordered)) - 1])
