"""Launches that overlap the kernel before them (programmatic dependent launch, CUDA 12.3, compute capability 9.0).

A kernel launched so may start while its predecessor still runs; until `wait_for_predecessor` it may only read what is
older than that. Triton's interpreter has neither instruction, so both are behind a compile-time flag.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def wait_for_predecessor(EARLY: tl.constexpr) -> None:
    """Everything before this kernel is done and visible, and the next may be launched as soon as all programs begin."""
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()


def launch_options(early: bool) -> dict[str, bool]:
    """What a launch needs beside the kernel's own flag."""
    return {"launch_pdl": True} if early else {}
