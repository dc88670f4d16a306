"""`python -m benchmarks.engine.ceilings`: what the card can do, as one line of JSON.

A process of its own, so that the memory it takes is free again before an engine starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from statistics import median
from typing import Any, Final

import torch

COPY_BYTES: Final = 2 << 30
MATRIX: Final = 8192
REPEATS: Final = 10


def card() -> str:
    """The device's name as torch gives it; `CPU` where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _median_s(work: Callable[[], object]) -> float:
    """The median over REPEATS of one call's time on the device, after three calls to warm up."""
    for _ in range(3):
        work()
    times: list[float] = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return median(times)


def measure() -> dict[str, Any]:
    """Copy bandwidth counts bytes read and written; the product is bf16 on random data."""
    found: dict[str, Any] = {"card": card(), "torch": torch.__version__}
    if not torch.cuda.is_available():
        return found
    source = torch.randn(COPY_BYTES // 2, device="cuda", dtype=torch.bfloat16)
    target = torch.empty_like(source)
    copy_s = _median_s(lambda: target.copy_(source))
    a = torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16)
    b, product = torch.randn_like(a), torch.empty_like(a)
    matmul_s = _median_s(lambda: torch.matmul(a, b, out=product))
    return found | {
        "copy_gb_per_s": 2 * COPY_BYTES / copy_s / 1e9,
        "matmul_tflop_per_s": 2 * MATRIX**3 / matmul_s / 1e12,
        "cuda": torch.version.cuda,
        "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30,
    }


if __name__ == "__main__":
    print(json.dumps(measure()))
