from __future__ import annotations

import pytest
import torch

from tests.worker_image.kernels.gen import randn
from worker_image.kernels.checks import KernelError
from worker_image.kernels.norm import add_rms_norm, rms_norm, rms_norm_reference
from worker_image.kernels.paged import PagedCache
from worker_image.kernels.qkv import QkvExtras, QkvShape, qkv_reference, qkv_to_cache
from worker_image.kernels.swiglu import swiglu, swiglu_reference

DTYPES = [torch.float32, torch.float16]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 64), (3, 896), (2, 5120), (5, 33)])
def test_rms_norm_matches_float64(rows: int, width: int, dtype: torch.dtype) -> None:
    x, weight = randn(rows, width, dtype=dtype), randn(width, dtype=dtype, seed=1)
    out = torch.full_like(x, float("nan"))
    rms_norm(x, weight, 1e-5, out)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(out.double(), rms_norm_reference(x, weight, 1e-5), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_residual_is_added_in_place_and_then_normalised(dtype: torch.dtype) -> None:
    x, residual, weight = randn(3, 896, dtype=dtype), randn(3, 896, dtype=dtype, seed=2), randn(896, dtype=dtype)
    total = x + residual
    add_rms_norm(x, residual, weight, 1e-5, x)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(residual, total)
    torch.testing.assert_close(x.double(), rms_norm_reference(total, weight, 1e-5), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 8), (3, 2049), (2, 4864)])
def test_swiglu_matches_float64(rows: int, width: int, dtype: torch.dtype) -> None:
    gate_up, out = randn(rows, 2 * width, dtype=dtype), torch.full((rows, width), float("nan"), dtype=dtype)
    swiglu(gate_up, out)
    torch.testing.assert_close(out.double(), swiglu_reference(gate_up), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "head_dim"), [((8, 2), 64), ((7, 1), 96), ((14, 2), 128)])
@pytest.mark.parametrize("extras", [False, True])
def test_queries_keys_and_values_go_where_they_belong(
    heads: tuple[int, int], head_dim: int, extras: bool, dtype: torch.dtype
) -> None:
    shape = QkvShape(*heads, head_dim, 1e-6)
    qkv = randn(5, shape.n_heads * head_dim, dtype=dtype)
    added = QkvExtras()
    if extras:
        bias, q_norm = randn(qkv.shape[1], dtype=dtype, seed=3), randn(head_dim, dtype=dtype, seed=4)
        added = QkvExtras(bias, q_norm, randn(head_dim, dtype=dtype, seed=5))
    rope = randn(50, head_dim)
    positions, slots = torch.tensor([3, 0, 49, 7, 8]), torch.tensor([40, 0, 17, -1, 63])
    cache = PagedCache(*(torch.zeros(4, heads[1], 16, head_dim, dtype=dtype) for _ in range(2)))
    q = torch.full((5, heads[0], head_dim), float("nan"), dtype=dtype)
    qkv_to_cache(shape, added, qkv, rope, positions, slots, cache, q)
    expected = qkv_reference(shape, added, qkv, rope, positions)
    tolerance = 5 * TOLERANCE[dtype]
    torch.testing.assert_close(q.double(), expected[0], rtol=tolerance, atol=tolerance)
    written = [0, 1, 2, 4]
    for side, wanted in ((cache.keys, expected[1]), (cache.values, expected[2])):
        found = side.transpose(1, 2).flatten(0, 1)
        torch.testing.assert_close(found[slots[written]].double(), wanted[written], rtol=tolerance, atol=tolerance)
        found[slots[written]] = 0
        assert not found.any()


def test_a_wrong_argument_is_refused_with_its_name() -> None:
    x = randn(2, 8)
    with pytest.raises(KernelError, match=r"weight has shape \(7\); the kernel takes \(8\)|weight has shape \(7,\)"):
        rms_norm(x, x[0, :7], 1e-5, x)
    with pytest.raises(KernelError, match="gate_up has rows of 7; they must be a gate and an up of one width"):
        swiglu(x[:, :7].contiguous(), x)
    with pytest.raises(KernelError, match=r"x has strides \(1, 2\); make it contiguous first"):
        rms_norm(x.T.contiguous().T, x[0], 1e-5, x)
