"""How a kernel is timed and how its error is stated. Knows no kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Final, TypeAlias

import torch

Call: TypeAlias = Callable[[], object]
REPEATS: Final = 7


def seconds(calls: Sequence[Call], n_calls: int = 24) -> float:
    """Of one call: the median over replays of a CUDA graph of `n_calls`, which go round the given ones.

    Several calls over different data keep a problem that is smaller than the L2 from being measured there.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(n_calls):
            calls[i % len(calls)]()
    graph.replay()
    return median(_replay_s(graph) for _ in range(REPEATS)) / n_calls


def _replay_s(graph: torch.cuda.CUDAGraph) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """‖found - expected‖ / ‖expected‖, in float64; NaN where anything is NaN."""
    expected = expected.double()
    return float((found.double() - expected).norm() / expected.norm())


def normal(*size: int) -> torch.Tensor:
    """bf16 on the card."""
    return torch.randn(size, device="cuda", dtype=torch.bfloat16)
