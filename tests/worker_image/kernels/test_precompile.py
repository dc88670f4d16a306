from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import torch
from triton.runtime import driver
from worker_image.kernels.norm import rms_norm
from worker_image.kernels.precompile import CompilingDriver
driver.set_active(CompilingDriver(90))
x = torch.empty(2, 64, dtype=torch.bfloat16)
rms_norm(x, x[0], 1e-5, x, early=True)
"""


def test_a_kernel_is_compiled_into_the_cache_where_there_is_no_card(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, timeout=300)
    assert [path.name for path in tmp_path.rglob("*.cubin")] == ["_rms_norm_kernel.cubin"]
