from __future__ import annotations

import pytest
import torch

from tests.worker_image.kernels.gen import cache_for, randn
from worker_image.kernels.checks import KernelError
from worker_image.kernels.decode_attention import (
    DecodeShape,
    DecodeWorkspace,
    decode_attention,
    decode_attention_reference,
    plan_step,
)
from worker_image.kernels.decode_plan import PlanShape, plan_decode, plan_decode_reference
from worker_image.kernels.tuning import AttentionTile

CPU = torch.device("cpu")


def shape_of(
    heads: tuple[int, int] = (4, 2),
    head_dim: int = 64,
    *,
    window: int | None = None,
    n_programs: int = 5,
    fixed_split: int | None = None,
    min_units: int = 1,
) -> DecodeShape:
    tile = AttentionTile(block_m=16, block_n=32, warps=4, stages=2, min_units=min_units)
    return DecodeShape(heads[0], heads[1], head_dim, window, tile, n_programs, fixed_split)


def attend(shape: DecodeShape, lengths: list[int], dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """The kernel's output, its reference and the workspace's counters afterwards."""
    cache, tables = cache_for(lengths, shape.n_kv_heads, shape.head_dim, dtype)
    q = randn(len(lengths), shape.n_q_heads, shape.head_dim, dtype=dtype)
    steps = torch.tensor(lengths, dtype=torch.int32)
    workspace = DecodeWorkspace.allocate(shape, shape.partial_slots(len(lengths), max(lengths)), CPU)
    plan_step(shape, workspace, steps)
    out = torch.zeros_like(q)
    decode_attention(shape, workspace, q, cache, tables, steps, out)
    return out, decode_attention_reference(shape, q, cache, tables, steps), workspace.arrivals


@pytest.mark.parametrize("lengths", [[1], [33, 1, 0, 97], [160], [0, 0, 5, 0], [31, 32, 33, 64, 65]])
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("min_units", [1, 3])
def test_a_plan_hands_out_every_unit_once_and_in_order(lengths: list[int], window: int | None, min_units: int) -> None:
    shape = PlanShape(2, 32, window, min_units)
    plan = torch.full((7, 8), -1, dtype=torch.int32)
    plan_decode(torch.tensor(lengths, dtype=torch.int32), plan, shape)
    assert torch.equal(plan, plan_decode_reference(torch.tensor(lengths), 7, shape))


@pytest.mark.parametrize("heads", [(4, 2), (7, 1), (6, 2), (2, 2)])
@pytest.mark.parametrize("head_dim", [64, 96, 128])
def test_decode_matches_float64_at_odd_lengths(heads: tuple[int, int], head_dim: int) -> None:
    out, expected, arrivals = attend(shape_of(heads, head_dim), [1, 77, 33, 64])
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    assert not arrivals.any()


def test_half_precision_stays_within_its_rounding() -> None:
    out, expected, _ = attend(shape_of(), [50, 95], torch.float16)
    assert (out.double() - expected).norm() / expected.norm() < 2e-3


@pytest.mark.parametrize("window", [1, 16, 40, 1000])
def test_a_window_hides_what_is_older(window: int) -> None:
    out, expected, _ = attend(shape_of(window=window), [70, 3, 129])
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_more_programs_than_units_and_a_single_program_agree() -> None:
    for n_programs in (1, 64):
        out, expected, _ = attend(shape_of(n_programs=n_programs, min_units=2), [200, 10])
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_rows_of_length_zero_are_padding_and_stay_untouched() -> None:
    out, expected, _ = attend(shape_of(), [0, 45, 0])
    assert not out[0].any()
    assert not out[2].any()
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_with_a_fixed_split_a_row_has_the_same_bits_in_any_batch() -> None:
    shape = shape_of(fixed_split=64, n_programs=3)
    cache, tables = cache_for([150, 61, 90], 2, 64, torch.float32)
    q = randn(3, 4, 64)
    lengths = torch.tensor([150, 61, 90], dtype=torch.int32)

    def run(rows: slice) -> torch.Tensor:
        workspace = DecodeWorkspace.allocate(shape, shape.partial_slots(3, 150), CPU)
        out = torch.zeros_like(q[rows])
        plan_step(shape, workspace, lengths[rows])
        decode_attention(shape, workspace, q[rows], cache, tables[rows], lengths[rows], out)
        return out

    expected = decode_attention_reference(shape, q, cache, tables, lengths)
    torch.testing.assert_close(run(slice(0, 3)).double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(run(slice(0, 3))[0], run(slice(0, 1))[0])


def test_a_wrong_argument_is_refused_with_its_name() -> None:
    shape = shape_of()
    cache, tables = cache_for([5], 2, 64, torch.float32)
    workspace = DecodeWorkspace.allocate(shape, 10, CPU)
    q, lengths = randn(1, 4, 64), torch.tensor([5], dtype=torch.int32)
    with pytest.raises(KernelError, match="lengths is int64; the kernel takes int32"):
        decode_attention(shape, workspace, q, cache, tables, lengths.long(), q)
    with pytest.raises(KernelError, match=r"q has shape \(1, 4, 32\); the kernel takes \(1, 4, 64\)"):
        decode_attention(shape, workspace, q[:, :, :32], cache, tables, lengths, q)
    with pytest.raises(KernelError, match="fixed_split is 33; it must be a multiple of the tile's 32 tokens"):
        shape_of(fixed_split=33)
