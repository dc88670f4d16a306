"""From the times at which tokens came to the numbers of a table. Pure; percentiles as numpy's default gives them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TypeAlias

import numpy as np

from benchmarks.engine.driver import Outcome
from benchmarks.engine.workloads import Workload

Numbers: TypeAlias = dict[str, float]


def check(workload: Workload, outcome: Outcome) -> None:
    """Raises ValueError where an answer has not exactly the tokens that the workload forces."""
    for i, (request, answer) in enumerate(zip(workload.requests, outcome.answers, strict=True)):
        if len(answer.tokens) != request.output_tokens:
            raise ValueError(
                f"{workload.name}, request {i}: {len(answer.tokens)} tokens came; the workload asks for exactly "
                f"{request.output_tokens}."
            )


def numbers(workload: Workload, outcome: Outcome) -> Numbers:
    """One repeat's numbers. TTFT counts from when the request was due, TPOT is per request."""
    ttft_ms = [answer.ttft_s * 1e3 for answer in outcome.answers]
    tpot_ms = [answer.tpot_s * 1e3 for answer in outcome.answers if answer.tpot_s is not None]
    return {
        "seconds": outcome.seconds,
        "output_tokens_per_s": workload.output_tokens / outcome.seconds,
        "total_tokens_per_s": (workload.output_tokens + workload.prompt_tokens) / outcome.seconds,
        "steps": outcome.steps,
        "preemptions": outcome.preemptions,
        "kv_waste": outcome.kv_waste,
        "step_ms": outcome.step_s * 1e3,
        "host_ms": outcome.host_s * 1e3,
        **_spread("ttft", ttft_ms),
        **_spread("tpot", tpot_ms),
    }


def _spread(name: str, values_ms: Sequence[float]) -> Numbers:
    if not values_ms:
        return {}
    p50, p99 = np.percentile(values_ms, [50, 99])
    return {
        f"{name}_ms": float(p50),
        f"{name}_p99_ms": float(p99),
        f"{name}_least_ms": min(values_ms),
        f"{name}_most_ms": max(values_ms),
    }


def medians(repeats: Sequence[Numbers]) -> Numbers:
    """Of each number over the repeats."""
    return {key: median(repeat[key] for repeat in repeats) for key in repeats[0]}
