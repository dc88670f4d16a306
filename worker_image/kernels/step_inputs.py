"""Turns a step's short description into what the forward pass and the sampler read, out of tables on the device.

The host sends a row and an index per token; a row's newest token, block table and sampling parameters are there
already. So a step is described in a few kilobytes, and the last step's tokens need not visit the host first.
Row -1 is padding everywhere: its token is 0, its slot -1, its temperature 0, and nothing is stored for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import triton
import triton.language as tl

from worker_image.kernels.checks import require_tensor
from worker_image.kernels.sampling import SamplingParameters

TILE: Final = 128
COLUMN_TILE: Final = 1024
PARAMETER_WORDS: Final = 8
"""Bits of temperature, top_p, min_p, then top_k, the seed's low and high half; two words spare for alignment."""


@dataclass(frozen=True)
class RowTables:
    """What the device knows of each row."""

    blocks: torch.Tensor
    """(rows, columns) int32: block tables."""
    newest: torch.Tensor
    """(rows,) int32: the token that was sampled last."""
    parameters: torch.Tensor
    """(rows, PARAMETER_WORDS) int32."""


@dataclass(frozen=True)
class TokenInputs:
    token_ids: torch.Tensor
    """(tokens,) int64."""
    positions: torch.Tensor
    """(tokens,) int64."""
    slots: torch.Tensor
    """(tokens,) int64: block · block_tokens + offset."""


def token_inputs(described: torch.Tensor, tables: RowTables, block_tokens: int, out: TokenInputs) -> None:
    """described: (3, tokens) int32: row, index in its sequence, token or -1 for the row's newest. Overwrites `out`."""
    n_tokens = out.token_ids.shape[0]
    require_tensor("described", described, (3, n_tokens), (torch.int32,), contiguous=False)
    _token_inputs[(triton.cdiv(n_tokens, TILE),)](
        described, described.stride(0), tables.blocks, tables.blocks.stride(0), tables.newest,
        out.token_ids, out.positions, out.slots, n_tokens, BLOCK_TOKENS=block_tokens, TILE=TILE,
    )  # fmt: skip


def gather_tables(
    rows: torch.Tensor, lengths: torch.Tensor, blocks: torch.Tensor, page: int, out: torch.Tensor
) -> None:
    """rows, lengths: (sequences,) int32; out: (sequences, columns) int32 gets as many columns as `lengths` need."""
    n_sequences, n_columns = out.shape
    require_tensor("rows", rows, (n_sequences,), (torch.int32,))
    require_tensor("lengths", lengths, (n_sequences,), (torch.int32,))
    if n_sequences:
        _gather_tables[(n_sequences, triton.cdiv(n_columns, COLUMN_TILE))](
            rows, lengths, blocks, blocks.stride(0), out, out.stride(0), n_columns, PAGE=page, TILE=COLUMN_TILE
        )


def sampling_inputs(rows: torch.Tensor, drawn: torch.Tensor, tables: RowTables, out: SamplingParameters) -> None:
    """rows, drawn: (samples,) int32, `drawn` the index of the token that is drawn. Overwrites `out`."""
    n_samples = out.temperature.shape[0]
    require_tensor("rows", rows, (n_samples,), (torch.int32,))
    require_tensor("drawn", drawn, (n_samples,), (torch.int32,))
    if n_samples:
        _sampling_inputs[(triton.cdiv(n_samples, TILE),)](
            rows, drawn, tables.parameters, out.temperature, out.top_p, out.min_p, out.top_k, out.seeds,
            out.positions, n_samples, WORDS=PARAMETER_WORDS, TILE=TILE,
        )  # fmt: skip


def keep_newest(rows: torch.Tensor, tokens: torch.Tensor, newest: torch.Tensor) -> None:
    """newest[rows] = tokens; rows: (samples,) int32, tokens: (samples,) int64."""
    n_samples = tokens.shape[0]
    require_tensor("rows", rows, (n_samples,), (torch.int32,))
    if n_samples:
        _keep_newest[(triton.cdiv(n_samples, TILE),)](rows, tokens, newest, n_samples, TILE=TILE)


def scatter(places: torch.Tensor, values: torch.Tensor, target: torch.Tensor) -> None:
    """target.view(-1)[places] = values; all int32, places: (n,) each named once, target contiguous."""
    require_tensor("values", values, tuple(places.shape), (torch.int32,))
    require_tensor("target", target, (None, None), (torch.int32,))
    n = places.shape[0]
    if n:
        _scatter[(triton.cdiv(n, COLUMN_TILE),)](places, values, target, n, TILE=COLUMN_TILE)


def token_inputs_reference(described: torch.Tensor, tables: RowTables, block_tokens: int) -> TokenInputs:
    """The same in torch."""
    rows, positions, tokens = described.long()
    real = rows >= 0
    ids = torch.where(tokens < 0, tables.newest.long()[rows], tokens).where(real, 0)
    blocks = tables.blocks.long()[rows, positions // block_tokens]
    return TokenInputs(ids, positions, (blocks * block_tokens + positions % block_tokens).where(real, -1))


@triton.jit(do_not_specialize=["described_stride", "tables_stride", "n_tokens"])
def _token_inputs(
    described: tl.tensor,
    described_stride: tl.tensor,
    tables: tl.tensor,
    tables_stride: tl.tensor,
    newest: tl.tensor,
    token_ids: tl.tensor,
    positions: tl.tensor,
    slots: tl.tensor,
    n_tokens: tl.tensor,
    BLOCK_TOKENS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    t = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = t < n_tokens
    row = tl.load(described + t, mask=inside, other=-1)
    position = tl.load(described + described_stride + t, mask=inside, other=0)
    token = tl.load(described + 2 * described_stride + t, mask=inside, other=0)
    real = row >= 0
    known = tl.load(newest + row, mask=real & (token < 0), other=0)
    token = tl.where(token < 0, known, token)
    block = tl.load(tables + row.to(tl.int64) * tables_stride + position // BLOCK_TOKENS, mask=real, other=0)
    slot = block.to(tl.int64) * BLOCK_TOKENS + position % BLOCK_TOKENS
    tl.store(token_ids + t, token.to(tl.int64), mask=inside)
    tl.store(positions + t, position.to(tl.int64), mask=inside)
    tl.store(slots + t, tl.where(real, slot, -1), mask=inside)


@triton.jit(do_not_specialize=["tables_stride", "out_stride", "n_columns"])
def _gather_tables(
    rows: tl.tensor,
    lengths: tl.tensor,
    tables: tl.tensor,
    tables_stride: tl.tensor,
    out: tl.tensor,
    out_stride: tl.tensor,
    n_columns: tl.tensor,
    PAGE: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    sequence = tl.program_id(0)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    # Padding has length 0, so nothing of its row is read.
    row = tl.load(rows + sequence).to(tl.int64)
    length = tl.load(lengths + sequence)
    wanted = (column < n_columns) & (column * PAGE < length)
    block = tl.load(tables + row * tables_stride + column, mask=wanted)
    tl.store(out + sequence.to(tl.int64) * out_stride + column, block, mask=wanted)


@triton.jit(do_not_specialize=["n_samples"])
def _sampling_inputs(
    rows: tl.tensor,
    drawn: tl.tensor,
    parameters: tl.tensor,
    temperature: tl.tensor,
    top_p: tl.tensor,
    min_p: tl.tensor,
    top_k: tl.tensor,
    seeds: tl.tensor,
    positions: tl.tensor,
    n_samples: tl.tensor,
    WORDS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    s = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = s < n_samples
    row = tl.load(rows + s, mask=inside, other=-1)
    real = row >= 0
    record = parameters + row * WORDS
    # The bits of 0.0 are zero, so padding is greedy.
    tl.store(temperature + s, tl.load(record, mask=real, other=0).to(tl.float32, bitcast=True), mask=inside)
    tl.store(top_p + s, tl.load(record + 1, mask=real, other=0).to(tl.float32, bitcast=True), mask=inside)
    tl.store(min_p + s, tl.load(record + 2, mask=real, other=0).to(tl.float32, bitcast=True), mask=inside)
    tl.store(top_k + s, tl.load(record + 3, mask=real, other=0), mask=inside)
    low = tl.load(record + 4, mask=real, other=0).to(tl.int64) & 0xFFFFFFFF
    high = tl.load(record + 5, mask=real, other=0).to(tl.int64)
    tl.store(seeds + s, (high << 32) | low, mask=inside)
    tl.store(positions + s, tl.load(drawn + s, mask=inside, other=0).to(tl.int64), mask=inside)


@triton.jit(do_not_specialize=["n_samples"])
def _keep_newest(
    rows: tl.tensor, tokens: tl.tensor, newest: tl.tensor, n_samples: tl.tensor, TILE: tl.constexpr
) -> None:
    s = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = s < n_samples
    row = tl.load(rows + s, mask=inside, other=-1)
    token = tl.load(tokens + s, mask=inside, other=0).to(tl.int32)
    tl.store(newest + row, token, mask=row >= 0)


@triton.jit(do_not_specialize=["n"])
def _scatter(places: tl.tensor, values: tl.tensor, target: tl.tensor, n: tl.tensor, TILE: tl.constexpr) -> None:
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = i < n
    place = tl.load(places + i, mask=inside, other=0).to(tl.int64)
    tl.store(target + place, tl.load(values + i, mask=inside, other=0), mask=inside)
