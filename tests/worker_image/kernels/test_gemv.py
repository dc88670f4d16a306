from __future__ import annotations

import pytest
import torch

from tests.worker_image.kernels.gen import randn
from worker_image.kernels.checks import KernelError
from worker_image.kernels.gemv import gemv, gemv_fits, gemv_reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("width", "depth"), [(4, 512), (12, 1536), (8, 1024), (4, 6144)])
def test_one_token_times_a_weight_is_the_reference(width: int, depth: int, dtype: torch.dtype) -> None:
    x, weight = randn(1, depth, dtype=dtype), randn(width, depth, dtype=dtype, seed=8)
    out = torch.full((1, width), float("nan"), dtype=dtype)
    gemv(x, weight, out)
    wanted = gemv_reference(x, weight)
    error = (out.double() - wanted).norm() / wanted.norm()
    assert float(error) < (1e-6 if dtype is torch.float32 else 1e-3)


def test_a_depth_or_width_that_does_not_divide_is_refused_with_what_fits() -> None:
    assert not gemv_fits(6, 512)
    assert not gemv_fits(4, 96)
    with pytest.raises(KernelError, match="6 × 512; rows come in 4s"):
        gemv(randn(1, 512), randn(6, 512), torch.empty(1, 6))
