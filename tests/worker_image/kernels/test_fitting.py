from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.worker_image.kernels.gen import cache_for, randn
from worker_image.engine.gpu_loading import fitted_tuning
from worker_image.errors import SettingsError
from worker_image.kernels.checks import KernelError
from worker_image.kernels.decode_attention import (
    DecodeShape,
    DecodeWorkspace,
    combine_bytes,
    combined_at_once,
    decode_attention,
    decode_attention_reference,
    plan_step,
)
from worker_image.kernels.fitting import LEAST_SHARED_BYTES, SCRATCH_BYTES, fitted, shared_bytes_of, tile_bytes
from worker_image.kernels.prefill_attention import (
    Chunk,
    PrefillShape,
    prefill_attention,
    prefill_attention_reference,
    prefill_tiles,
)
from worker_image.kernels.tuning import OTHER, AttentionTile, Tuning, tile_for, tuning_for
from worker_image.models.config import ModelConfig, RopeConfig

SHAPE = ModelConfig("llama", 32, 4096, 14336, 32, 8, 128, 128256, 131072, RopeConfig(500000.0), 1e-5)
CARDS = {"NVIDIA H200": shared_bytes_of(90), OTHER: LEAST_SHARED_BYTES}


def tiles_of(tuning: Tuning) -> list[AttentionTile]:
    return [tuning.prefill, tuning.fixed_attention, *(tile for _, tile in tuning.decode)]


@pytest.mark.parametrize("card", CARDS)
def test_heads_of_up_to_128_elements_keep_the_tuned_tiles(card: str) -> None:
    for head_dim in (16, 64, 80, 128):
        tuning = tuning_for(card)
        assert fitted(tuning, replace(SHAPE, head_dim=head_dim), CARDS[card]) == tuning


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("head_dim", [160, 192, 256, 512])
@pytest.mark.parametrize("group", [1, 7, 16])
def test_larger_heads_get_tiles_that_the_card_holds(card: str, head_dim: int, group: int) -> None:
    config = replace(SHAPE, n_q_heads=2 * group, n_kv_heads=2, head_dim=head_dim)
    tuning = fitted(tuning_for(card), config, CARDS[card])
    for tile in tiles_of(tuning):
        assert group <= tile.block_m
        assert tile_bytes(tile, head_dim) <= CARDS[card]
        assert combine_bytes(group, head_dim, tile.warps) + SCRATCH_BYTES <= CARDS[card]
    assert tuning.fixed_split % tuning.fixed_attention.block_n == 0


def test_a_large_head_takes_fewer_keys_at_a_time_and_fewer_rows_where_registers_would_not_hold_them() -> None:
    tuning, card = tuning_for("NVIDIA H200"), CARDS["NVIDIA H200"]
    assert fitted(tuning, replace(SHAPE, head_dim=256), card).prefill == AttentionTile(128, 64, 8, 3)
    assert fitted(tuning, replace(SHAPE, head_dim=512), card).prefill == AttentionTile(64, 32, 8, 3)


def test_a_group_that_the_tuned_tile_does_not_hold_gets_a_wider_one() -> None:
    wide = fitted(tuning_for(OTHER), replace(SHAPE, n_q_heads=71, n_kv_heads=1, head_dim=64), LEAST_SHARED_BYTES)
    assert wide.prefill.block_m == 128
    PrefillShape(71, 1, 64, None, wide.prefill)


def test_heads_that_no_tile_holds_are_refused_before_the_weights_are_read() -> None:
    config = replace(SHAPE, n_q_heads=64, n_kv_heads=1, head_dim=512)
    said = (
        "heads of 512 elements, 64 query heads to a KV head, need 134 KiB of shared memory; "
        "a program on this card may have 99"
    )
    with pytest.raises(KernelError, match=said):
        fitted(tuning_for(OTHER), config, LEAST_SHARED_BYTES)
    with pytest.raises(SettingsError, match=f"this model's {said}. Serve it on a card with more"):
        fitted_tuning(tuning_for(OTHER), config, LEAST_SHARED_BYTES)
    fitted(tuning_for("NVIDIA H200"), config, shared_bytes_of(90))


def test_fewer_partials_are_combined_at_once_where_each_is_large() -> None:
    assert [combined_at_once(8, 128, warps) for warps in (1, 2, 4, 8)] == [4, 8, 16, 16]
    assert [combined_at_once(group, 256, 4) for group in (4, 8, 16, 64)] == [16, 8, 4, 1]


@pytest.mark.parametrize("head_dim", [256, 512])
def test_prompts_of_large_heads_match_float64(head_dim: int) -> None:
    tuning = fitted(tuning_for(OTHER), replace(SHAPE, n_q_heads=4, n_kv_heads=2, head_dim=head_dim), LEAST_SHARED_BYTES)
    shape = PrefillShape(4, 2, head_dim, None, tuning.prefill)
    cache, tables = cache_for([40, 50], 2, head_dim, torch.float32)
    chunks = [Chunk(0, 40, 40), Chunk(40, 3, 50)]
    q = randn(43, 4, head_dim)
    out = torch.full_like(q, float("nan"))
    prefill_attention(shape, q, cache, tables, prefill_tiles(chunks, shape.tokens_a_tile), out)
    expected = prefill_attention_reference(shape, q, cache, tables, chunks)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head_dim", [256, 512])
def test_decoding_with_large_heads_matches_float64(head_dim: int) -> None:
    tuning = fitted(tuning_for(OTHER), replace(SHAPE, n_q_heads=8, n_kv_heads=1, head_dim=head_dim), LEAST_SHARED_BYTES)
    shape = DecodeShape(8, 1, head_dim, None, tile_for(tuning.decode, 2), 8)
    cache, tables = cache_for([200, 33], 1, head_dim, torch.float32)
    workspace = DecodeWorkspace.allocate(shape, shape.partial_slots(2, 200), torch.device("cpu"))
    q, lengths = randn(2, 8, head_dim), torch.tensor([200, 33], dtype=torch.int32)
    out = torch.full_like(q, float("nan"))
    plan_step(shape, workspace, lengths)
    decode_attention(shape, workspace, q, cache, tables, lengths, out)
    expected = decode_attention_reference(shape, q, cache, tables, lengths)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


COMPILED = """
import torch
from triton.runtime import driver
from worker_image.kernels.paged import PagedCache
from worker_image.kernels.precompile import CompilingDriver
from worker_image.kernels.prefill_attention import Chunk, PrefillShape, prefill_attention, prefill_tiles
from worker_image.kernels.tuning import AttentionTile
driver.set_active(CompilingDriver(90))
shape = PrefillShape(4, 1, 256, None, AttentionTile(64, 32, 4, 3))
q, cache = torch.empty((1, 4, 256), dtype=torch.bfloat16), torch.empty((1, 1, 16, 256), dtype=torch.bfloat16)
table = torch.zeros((1, 1), dtype=torch.int32)
prefill_attention(shape, q, PagedCache(cache, cache), table, prefill_tiles([Chunk(0, 1, 1)], 16), q)
"""


def test_a_compiled_kernel_takes_no_more_shared_memory_than_was_counted(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    subprocess.run([sys.executable, "-c", COMPILED], env=environment, check=True, timeout=900)
    [described] = tmp_path.rglob("_prefill_kernel.json")
    shared_bytes = json.loads(described.read_text(encoding="utf-8"))["shared"]
    assert 0 < shared_bytes <= tile_bytes(AttentionTile(64, 32, 4, 3), 256)
