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


@triton.jit
def fetch_to_l2(pointers: tl.tensor, mask: tl.tensor) -> None:
    """Asks for the cache lines that hold `pointers`, and does not wait for them. On a card only."""
    tl.inline_asm_elementwise(
        """{
        .reg .pred %wanted;
        setp.ne.s32 %wanted, $2, 0;
        @%wanted prefetch.global.L2 [$1];
        mov.u32 $0, 0;
        }""",
        "=r,l,r",
        [pointers.to(tl.int64), mask.to(tl.int32)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


def launch_options(early: bool) -> dict[str, bool]:
    """What a launch needs beside the kernel's own flag."""
    return {"launch_pdl": True} if early else {}
