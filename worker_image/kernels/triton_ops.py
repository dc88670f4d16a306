"""`Ops` on a GPU: our kernels around cuBLAS, bf16, every step without a look back at the host.

`TritonOps` computes; `Steps` owns the attention's scratch memory and turns what the runner knows of a step into what
the kernels read. In deterministic mode matmuls are ours, and attention sums in splits that depend on nothing but the
position; both then give a token the same bits in any batch, and in prefill what decode would give.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import torch
from torch.nn.functional import embedding

from worker_image.kernels.decode_attention import DecodeShape, DecodeWorkspace, decode_attention, plan_step
from worker_image.kernels.gemm import matmul, matmul_fits
from worker_image.kernels.gemv import gemv, gemv_fits
from worker_image.kernels.norm import add_rms_norm, rms_norm
from worker_image.kernels.paged import PagedCache
from worker_image.kernels.prefill_attention import Chunk, PrefillShape, prefill_attention, prefill_tiles
from worker_image.kernels.qkv import QkvExtras, QkvShape, qkv_to_cache
from worker_image.kernels.swiglu import swiglu
from worker_image.kernels.tuning import AttentionTile, Tuning, tile_for
from worker_image.models.ops import AttentionLayer, StepTensors

Window: TypeAlias = int | None
MAX_SPLITS: Final = 64
"""Of one sequence in deterministic mode: their partial results are combined one by one and held for every row."""
EARLY_ROWS: Final = 64
"""With more, kernels that wait for their predecessor hold room on the card that it could use: 5 % of a prefill step."""


@dataclass(frozen=True)
class KvTensors:
    """The paged cache of all layers."""

    data: torch.Tensor
    """(layers, 2, blocks, kv_heads, page, head_dim): keys, then values."""

    @classmethod
    def allocate(
        cls, n_layers: int, n_blocks: int, n_kv_heads: int, page: int, head_dim: int,
        dtype: torch.dtype, device: torch.device,
    ) -> KvTensors:  # fmt: skip
        """Nothing is written: slots that no token has filled are never read."""
        return cls(torch.empty((n_layers, 2, n_blocks, n_kv_heads, page, head_dim), dtype=dtype, device=device))

    @cached_property
    def layers(self) -> tuple[PagedCache, ...]:
        """Views, made once: making them costs the host as much as a launch."""
        return tuple(PagedCache(keys, values) for keys, values in self.data)

    def layer(self, index: int) -> PagedCache:
        return self.layers[index]

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        """(from, to) of whole blocks in all layers; no block is both."""
        if copies:
            sources, targets = torch.tensor(copies).T.to(self.data.device)
            self.data.index_copy_(2, targets, self.data.index_select(2, sources))


@dataclass(frozen=True)
class DecodePart:
    """The step's first rows: one token of each sequence."""

    n_rows: int
    tables: torch.Tensor
    """(rows, columns) int32."""
    lengths: torch.Tensor
    """(rows,) int32, the new token counted; 0 for padding."""
    planned: dict[Window, tuple[DecodeShape, DecodeWorkspace]]


@dataclass(frozen=True)
class PrefillPart:
    """The step's other rows: runs of tokens."""

    tables: torch.Tensor
    """(chunks, columns) int32."""
    tiles: torch.Tensor
    """Of `prefill_tiles`, on the device."""
    shapes: dict[Window, PrefillShape]


@dataclass(frozen=True)
class TritonStep(StepTensors):
    """Made by `Steps`."""

    positions: torch.Tensor
    """(tokens,) int64."""
    slots: torch.Tensor
    """(tokens,) int64, negative for padding."""
    cache: KvTensors
    decode: DecodePart | None
    prefill: PrefillPart | None


@dataclass(frozen=True)
class StepTokens:
    """The tokens of a step, decodes first, then the chunks one after the other."""

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    sample_rows: torch.Tensor | None


@dataclass(frozen=True)
class StepLimits:
    """What scratch memory is made for."""

    rows: int
    """Sequences that decode in one step."""
    tokens: int
    """Of the longest sequence."""

    def split(self, least: int) -> int:
        """Tokens a split in deterministic mode: `least`, doubled until the longest sequence has few enough."""
        return next(split for n in range(32) if (split := least << n) * MAX_SPLITS >= self.tokens)


class Steps:
    """One model's attention scratch, allocated once: graphs hold its addresses."""

    def __init__(
        self, layers: Sequence[AttentionLayer], cache: KvTensors, tuning: Tuning, limits: StepLimits, *,
        deterministic: bool = False,
    ) -> None:  # fmt: skip
        self._cache = cache
        self._heads = (layers[0].n_q_heads, layers[0].n_kv_heads, layers[0].head_dim)
        self._windows = sorted({layer.window for layer in layers}, key=lambda window: window or 0)
        self._tuning = tuning
        self._limits = limits
        self._split = limits.split(tuning.fixed_split) if deterministic else None
        self._n_sms = n_multiprocessors(cache.data.device)
        self._made: dict[tuple[Window, AttentionTile], tuple[DecodeShape, DecodeWorkspace]] = {}

    def decode(self, tokens: StepTokens, tables: torch.Tensor, lengths: torch.Tensor) -> TritonStep:
        """Every row decodes. Enqueues the plans, so that a captured step makes its own for the lengths of the day."""
        part = self._decode_part(tables, lengths)
        return self._step(tokens, part, None)

    def mixed(
        self, tokens: StepTokens, tables: torch.Tensor, lengths: torch.Tensor, chunks: Sequence[Chunk]
    ) -> TritonStep:
        """tables: (sequences, columns), lengths: (sequences,), decodes first, then one for each of `chunks`."""
        n_decodes = lengths.shape[0] - len(chunks)
        part = self._decode_part(tables[:n_decodes], lengths[:n_decodes]) if n_decodes else None
        tile = self._tuning.prefill if self._split is None else self._tuning.fixed_attention
        shapes = {window: PrefillShape(*self._heads, window, tile, self._split) for window in self._windows}
        tiles = prefill_tiles(chunks, next(iter(shapes.values())).tokens_a_tile)
        if tables.is_cuda:
            tiles = tiles.pin_memory().to(tables.device, non_blocking=True)
        return self._step(tokens, part, PrefillPart(tables[n_decodes:], tiles, shapes))

    def _step(self, tokens: StepTokens, decode: DecodePart | None, prefill: PrefillPart | None) -> TritonStep:
        return TritonStep(
            token_ids=tokens.token_ids, sample_rows=tokens.sample_rows, positions=tokens.positions,
            slots=tokens.slots, cache=self._cache, decode=decode, prefill=prefill,
        )  # fmt: skip

    def _decode_part(self, tables: torch.Tensor, lengths: torch.Tensor) -> DecodePart:
        rows = lengths.shape[0]
        tile = tile_for(self._tuning.decode, rows) if self._split is None else self._tuning.fixed_attention
        planned = {window: self._made_for(window, tile) for window in self._windows}
        for shape, workspace in planned.values():
            plan_step(shape, workspace, lengths)
        return DecodePart(rows, tables, lengths, planned)

    def _made_for(self, window: Window, tile: AttentionTile) -> tuple[DecodeShape, DecodeWorkspace]:
        made = self._made.get((window, tile))
        if made is None:
            n_programs = self._n_sms * tile.programs_per_sm
            shape = DecodeShape(*self._heads, window, tile, n_programs, self._split)
            workspace = DecodeWorkspace.allocate(
                shape, shape.partial_slots(self._limits.rows, self._limits.tokens), self._cache.data.device
            )
            made = self._made[window, tile] = shape, workspace
        return made


class TritonOps:
    """`Ops[torch.Tensor, TritonStep]`."""

    def __init__(
        self, device: torch.device, tuning: Tuning, dtype: torch.dtype = torch.bfloat16, *, deterministic: bool = False
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._tuning = tuning
        self._early = tuning.early
        self._deterministic = deterministic
        self._own_rows = sys.maxsize if deterministic else tuning.own_matmul_rows
        self._n_sms = n_multiprocessors(device)

    def prepare(self, weight: torch.Tensor) -> torch.Tensor:
        return weight

    def embed(self, token_ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return embedding(token_ids, weight)

    def linear(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        rows, width, depth = x.shape[0], *weight.shape
        if not self.has_own_matmul(rows, width, depth):
            return torch.mm(x, weight.t())
        out = x.new_empty((rows, width))
        if self._is_gemv(rows, width, depth):
            gemv(x, weight, out, early=True)
        else:
            matmul(x, weight, out, tile_for(self._tuning.matmul, rows), self._n_sms, early=self._is_early(rows))
        return out

    def has_own_matmul(self, rows: int, width: int, depth: int) -> bool:
        """Whether x: (rows, depth) meets a weight (width, depth) in one of our kernels rather than in cuBLAS."""
        own = rows <= self._own_rows and (self._deterministic or matmul_fits(depth, self.dtype))
        return own or self._is_gemv(rows, width, depth)

    def _is_gemv(self, rows: int, width: int, depth: int) -> bool:
        return rows == 1 and not self._deterministic and self._early and gemv_fits(width, depth)

    def _is_early(self, rows: int) -> bool:
        return self._early and rows <= EARLY_ROWS

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        out = torch.empty_like(x)
        rms_norm(x, weight, eps, out, early=self._is_early(x.shape[0]))
        return out

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        add_rms_norm(x, residual, weight, eps, x, early=self._is_early(x.shape[0]))
        return x, residual

    def attention(self, layer: AttentionLayer, qkv: torch.Tensor, step: TritonStep) -> torch.Tensor:
        cache, early = step.cache.layer(layer.index), self._is_early(qkv.shape[0])
        shape = QkvShape(layer.n_q_heads, layer.n_kv_heads, layer.head_dim, layer.norm_eps)
        q = qkv.new_empty((qkv.shape[0], layer.n_q_heads, layer.head_dim))
        extras = QkvExtras(layer.bias, layer.q_norm, layer.k_norm)
        qkv_to_cache(shape, extras, qkv, layer.rope, step.positions, step.slots, cache, q, early=early)
        out = torch.empty_like(q)
        if step.decode is not None:
            part, rows = step.decode, slice(0, step.decode.n_rows)
            shape_and_scratch = part.planned[layer.window]
            decode_attention(*shape_and_scratch, q[rows], cache, part.tables, part.lengths, out[rows], early=early)
        if step.prefill is not None:
            prefill = step.prefill
            prefill_attention(prefill.shapes[layer.window], q, cache, prefill.tables, prefill.tiles, out)
        return out.flatten(1)

    def swiglu(self, gate_up: torch.Tensor) -> torch.Tensor:
        out = gate_up.new_empty((gate_up.shape[0], gate_up.shape[1] // 2))
        swiglu(gate_up, out, early=self._is_early(gate_up.shape[0]))
        return out


def n_multiprocessors(device: torch.device) -> int:
    """1 where there is no card, as in Triton's interpreter."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
