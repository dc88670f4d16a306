from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NO_CARD = """
import torch
from triton.runtime import driver
from worker_image.kernels.precompile import CompilingDriver
driver.set_active(CompilingDriver(90))
"""
NORM = """
from worker_image.kernels.norm import rms_norm
x = torch.empty(2, 64, dtype=torch.bfloat16)
rms_norm(x, x[0], 1e-5, x, early=True)
"""
SMALL = """
from worker_image.kernels.decode_attention import DecodeShape, DecodeWorkspace, decode_attention
from worker_image.kernels.gemm import matmul
from worker_image.kernels.paged import PagedCache
from worker_image.kernels.tuning import AttentionTile, MatmulTile

def empty(*size):
    return torch.empty(size, dtype=torch.bfloat16)

matmul(empty(1, 384), empty(33, 384), empty(1, 33), MatmulTile(16, 16, 64, 4, 2, swap=True, ahead=512), 1, early=True)
shape = DecodeShape(2, 1, 8, None, AttentionTile(16, 16, 4, 2), 2)
workspace = DecodeWorkspace.allocate(shape, 4, torch.device("cpu"))
cache, ints = PagedCache(empty(1, 1, 16, 8), empty(1, 1, 16, 8)), torch.zeros((1, 1), dtype=torch.int32)
decode_attention(shape, workspace, empty(1, 2, 8), cache, ints, ints[0], empty(1, 2, 8), early=True)
"""


def compiled(script: str, cache: Path) -> list[str]:
    """Names of the kernels that the script leaves in Triton's cache."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "TRITON_DEFAULT_FP_FUSION": "1"}
    subprocess.run([sys.executable, "-c", NO_CARD + script], env=environment, check=True, timeout=900)
    return sorted(path.name for path in cache.rglob("*.cubin"))


def test_a_kernel_is_compiled_into_the_cache_where_there_is_no_card(tmp_path: Path) -> None:
    assert compiled(NORM, tmp_path) == ["_rms_norm_kernel.cubin"]


def test_kernels_that_begin_early_compile_for_models_of_tiny_heads_and_odd_widths(tmp_path: Path) -> None:
    assert compiled(SMALL, tmp_path) == ["_decode_kernel.cubin", "_matmul_kernel.cubin"]
