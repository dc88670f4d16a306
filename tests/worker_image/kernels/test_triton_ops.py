"""`TritonOps` against `ReferenceOps`, the definition of every result."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.worker_image.kernels.gen import PAGE, randn, tables_for
from worker_image.kernels.checks import KernelError
from worker_image.kernels.prefill_attention import Chunk
from worker_image.kernels.triton_ops import KvTensors, StepLimits, Steps, StepTokens, TritonOps, TritonStep
from worker_image.kernels.tuning import OTHER, tile_for, tuning_for
from worker_image.models.config import KvShape
from worker_image.models.kv_cache import AttentionGroup, DecodeGroup, KvCache, PrefillGroup
from worker_image.models.ops import AttentionLayer
from worker_image.models.reference_ops import ReferenceOps, ReferenceStep

CPU = torch.device("cpu")
HEADS, KV_HEADS, DIM = 4, 2, 32
DECODES, PROMPTS = [40, 7], [(20, 50), (33, 33)]


def layer_of(window: int | None) -> AttentionLayer:
    width = (HEADS + 2 * KV_HEADS) * DIM
    gains = [1 + 0.1 * randn(DIM, seed=seed) for seed in (20, 21)]
    rope = randn(64, DIM, seed=22)
    return AttentionLayer(1, HEADS, KV_HEADS, DIM, rope, 1e-6, randn(width, seed=23), gains[0], gains[1], window)


class Both:
    """One step of two decodes and two chunks, for either implementation, over the same cached past."""

    def __init__(self, window: int | None, deterministic: bool = False) -> None:
        self.lengths = [*DECODES, *(kv for _, kv in PROMPTS)]
        self.tables, n_blocks = tables_for(self.lengths)
        self.tables = self.tables.clamp(max=n_blocks - 1)
        news = [1, 1, *(n for n, _ in PROMPTS)]
        self.positions = torch.cat([torch.arange(kv - n, kv) for n, kv in zip(news, self.lengths, strict=True)])
        rows = torch.repeat_interleave(torch.arange(4), torch.tensor(news))
        self.slots = self.tables[rows, self.positions // PAGE].long() * PAGE + self.positions % PAGE
        self.layer = layer_of(window)
        self.ops = TritonOps(CPU, tuning_for("none"), torch.float32, deterministic=deterministic)
        past = randn(2, n_blocks, KV_HEADS, PAGE, DIM, seed=3)
        self.kv = KvTensors.allocate(2, n_blocks, KV_HEADS, PAGE, DIM, torch.float32, CPU)
        self.kv.data.fill_(float("nan"))
        self.kv.data[1] = past
        self.steps = Steps([self.layer], self.kv, tuning_for("none"), StepLimits(4, 64), deterministic=deterministic)
        self.cache = KvCache(KvShape(2, KV_HEADS, DIM), n_blocks, PAGE)
        for pool, side in ((self.cache.keys, past[0]), (self.cache.values, past[1])):
            pool[1] = side.transpose(1, 2).flatten(2)

    def step(self) -> TritonStep:
        tokens = StepTokens(torch.zeros_like(self.positions), self.positions, self.slots, None)
        chunks = [Chunk(2, 20, 50), Chunk(22, 33, 33)]
        return self.steps.mixed(tokens, self.tables, torch.tensor(self.lengths, dtype=torch.int32), chunks)

    def reference(self) -> ReferenceStep:
        tables = self.tables.long()
        groups: tuple[AttentionGroup, ...] = (
            DecodeGroup(slice(0, 2), tables[:2], torch.tensor(DECODES)),
            PrefillGroup(slice(2, 22), tables[2, : -(-50 // PAGE)], 30, 20),
            PrefillGroup(slice(22, 55), tables[3, : -(-33 // PAGE)], 0, 33),
        )
        ids = torch.zeros_like(self.positions)
        return ReferenceStep(ids, None, self.positions, self.slots, groups, self.cache)


@pytest.mark.parametrize("window", [None, 24])
@pytest.mark.parametrize("deterministic", [False, True])
def test_attention_of_a_mixed_step_is_the_references(window: int | None, deterministic: bool) -> None:
    both = Both(window, deterministic)
    qkv = randn(55, (HEADS + 2 * KV_HEADS) * DIM)
    found = both.ops.attention(both.layer, qkv.clone(), both.step())
    expected = ReferenceOps().attention(both.layer, qkv.clone(), both.reference())
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)
    written = both.kv.data[1, 0].transpose(1, 2).flatten(2)
    torch.testing.assert_close(written, both.cache.keys[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("deterministic", [False, True])
def test_everything_else_is_the_references(deterministic: bool) -> None:
    ops, reference = TritonOps(CPU, tuning_for("none"), torch.float32, deterministic=deterministic), ReferenceOps()
    x, residual, weight, matrix = randn(3, 64), randn(3, 64, seed=1), randn(64, seed=2), randn(40, 64, seed=3)
    close = torch.testing.assert_close
    close(ops.embed(torch.tensor([2, 0]), x), x[[2, 0]])
    close(ops.linear(x, ops.prepare(matrix)), x @ matrix.T, rtol=1e-5, atol=1e-5)
    close(ops.rms_norm(x, weight, 1e-5), reference.rms_norm(x, weight, 1e-5))
    close(ops.swiglu(x), reference.swiglu(x.clone()))
    expected = reference.add_rms_norm(x.clone(), residual.clone(), weight, 1e-5)
    found = ops.add_rms_norm(x, residual, weight, 1e-5)
    close(found[0], expected[0])
    close(found[1], expected[1])


def test_rows_that_our_matmul_cannot_read_are_left_to_cublas() -> None:
    tuning = replace(tuning_for("none"), own_matmul_rows=32)
    ops = TritonOps(CPU, tuning, torch.float32)
    assert ops.has_own_matmul(3, 33, 64)
    for depth in (64, 66):
        x, weight = randn(3, depth), randn(33, depth, seed=1)
        torch.testing.assert_close(ops.linear(x, weight), x @ weight.T, rtol=1e-5, atol=1e-5)


def test_whole_blocks_are_copied_in_all_layers() -> None:
    kv = KvTensors(randn(3, 2, 5, 1, PAGE, 8))
    before = kv.data.clone()
    kv.copy_blocks([(0, 3), (4, 1)])
    assert torch.equal(kv.data[:, :, [3, 1]], before[:, :, [0, 4]])
    assert torch.equal(kv.data[:, :, [0, 2, 4]], before[:, :, [0, 2, 4]])


def test_splits_grow_with_the_longest_sequence_so_that_scratch_memory_does_not() -> None:
    assert [StepLimits(1, tokens).split(512) for tokens in (1, 32768, 32769, 131072)] == [512, 512, 1024, 2048]


def test_every_entry_of_the_tuned_table_serves_any_number_of_rows() -> None:
    for name in ("NVIDIA H200", OTHER):
        tuning = tuning_for(name)
        for rows in (1, 3, 64, 10**6):
            assert tuning.fixed_split % tuning.fixed_attention.block_n == 0
            assert tile_for(tuning.decode, rows).block_n > 0
            assert tile_for(tuning.matmul, rows).block_k > 0


def test_a_slice_of_a_card_and_its_smaller_sister_use_the_cards_tiles() -> None:
    entry = tuning_for("NVIDIA H200")
    assert entry != tuning_for(OTHER)
    assert tuning_for("NVIDIA H200 MIG 1g.18gb") == tuning_for("NVIDIA H100 80GB HBM3") == entry
    assert tuning_for("NVIDIA L4") == tuning_for(OTHER)


def test_a_cache_of_another_shape_is_refused() -> None:
    both = Both(None)
    odd = KvTensors(both.kv.data[:, :, :, :1])
    qkv = randn(55, (HEADS + 2 * KV_HEADS) * DIM)
    step = both.step()
    with pytest.raises(KernelError, match="keys has shape"):
        both.ops.attention(both.layer, qkv, TritonStep(**{**vars(step), "cache": odd}))
