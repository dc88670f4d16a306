from __future__ import annotations

import pytest
import torch

from tests.worker_image.kernels.gen import cache_for, randn
from worker_image.kernels.checks import KernelError
from worker_image.kernels.decode_attention import DecodeShape, DecodeWorkspace, decode_attention, plan_step
from worker_image.kernels.prefill_attention import (
    Chunk,
    PrefillShape,
    prefill_attention,
    prefill_attention_reference,
    prefill_tiles,
)
from worker_image.kernels.tuning import AttentionTile

TILE = AttentionTile(block_m=32, block_n=32, warps=4, stages=2)


def attend(
    shape: PrefillShape, runs: list[tuple[int, int]], dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """runs: (new tokens, tokens once written) of each sequence → output and reference."""
    cache, tables = cache_for([kv for _, kv in runs], shape.n_kv_heads, shape.head_dim, dtype)
    chunks, row = [], 0
    for n_tokens, kv_length in runs:
        chunks.append(Chunk(row, n_tokens, kv_length))
        row += n_tokens
    q = randn(row, shape.n_q_heads, shape.head_dim, dtype=dtype)
    out = torch.full_like(q, float("nan"))
    prefill_attention(shape, q, cache, tables, prefill_tiles(chunks, shape.tokens_a_tile), out)
    return out, prefill_attention_reference(shape, q, cache, tables, chunks)


@pytest.mark.parametrize("heads", [(4, 2), (3, 1), (2, 2), (14, 2)])
@pytest.mark.parametrize("head_dim", [64, 96])
def test_prompts_and_chunks_of_one_batch_match_float64(heads: tuple[int, int], head_dim: int) -> None:
    out, expected = attend(PrefillShape(*heads, head_dim, None, TILE), [(33, 33), (1, 50), (17, 100), (64, 64)])
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [1, 20, 64, 500])
def test_a_window_hides_what_is_older(window: int) -> None:
    out, expected = attend(PrefillShape(4, 2, 64, window, TILE), [(70, 70), (9, 130)])
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_half_precision_stays_within_its_rounding() -> None:
    out, expected = attend(PrefillShape(4, 2, 128, None, TILE), [(40, 90)], torch.float16)
    assert (out.double() - expected).norm() / expected.norm() < 2e-3


@pytest.mark.parametrize("window", [None, 50])
def test_with_a_fixed_split_prefill_gives_the_bits_of_decode(window: int | None) -> None:
    length, tile = 150, AttentionTile(block_m=16, block_n=32, warps=4, stages=2)
    cache, tables = cache_for([length], 2, 64, torch.float32)
    q = randn(length, 4, 64)
    prefill = PrefillShape(4, 2, 64, window, tile, fixed_split=64)
    chunks = [Chunk(0, length, length)]
    prompt = torch.empty_like(q)
    prefill_attention(prefill, q, cache, tables, prefill_tiles(chunks, prefill.tokens_a_tile), prompt)
    expected = prefill_attention_reference(prefill, q, cache, tables, chunks)
    torch.testing.assert_close(prompt.double(), expected, rtol=1e-5, atol=1e-5)
    decode = DecodeShape(4, 2, 64, window, tile, 3, fixed_split=64)
    workspace = DecodeWorkspace.allocate(decode, decode.partial_slots(1, length), torch.device("cpu"))
    for position in (0, 63, 64, 149):
        lengths = torch.tensor([position + 1], dtype=torch.int32)
        plan_step(decode, workspace, lengths)
        step = torch.empty_like(q[:1])
        decode_attention(decode, workspace, q[position : position + 1], cache, tables, lengths, step)
        assert torch.equal(step[0], prompt[position])


def test_tiles_are_listed_with_the_costliest_first() -> None:
    tiles = prefill_tiles([Chunk(0, 20, 20), Chunk(20, 5, 100)], 16)
    assert tiles.tolist() == [[1, 20, 5, 95], [0, 16, 4, 16], [0, 0, 16, 0]]


def test_a_chunk_longer_than_its_sequence_is_refused() -> None:
    with pytest.raises(KernelError, match="chunk 0 has 6 tokens of 5; it must hold at least one, at most all"):
        prefill_tiles([Chunk(0, 6, 5)], 16)
    with pytest.raises(KernelError, match="40 query heads a KV head do not fit the tile of 32 rows"):
        PrefillShape(40, 1, 64, None, TILE)
