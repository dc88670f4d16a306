"""Turns a step's short description into what the forward pass reads, out of tables that stay on the device.

The host sends a row and an index per token; the newest token and the block table of a row are already there. So a
step is described in a few kilobytes, and the tokens of the step before never visit the host first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from worker_image.kernels.checks import require_tensor

TOKEN_TILE = 128
COLUMN_TILE = 1024


@dataclass(frozen=True)
class RowTables:
    """What the device knows of each row. `block_tables`: (rows, columns) int32; `newest`: (rows,) int32."""

    block_tables: torch.Tensor
    newest: torch.Tensor


@dataclass(frozen=True)
class TokenInputs:
    """(tokens,) each: `token_ids` int32, `positions` int32, `slots` int64."""

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor


def token_inputs(described: torch.Tensor, tables: RowTables, block_tokens: int, out: TokenInputs) -> None:
    """described: (3, tokens) int32, rows contiguous: row, index in its sequence, token or -1 for the row's newest.

    Writes `out`. A token's slot is block · block_tokens + offset, by its row's table.
    """
    n_tokens = out.token_ids.shape[0]
    require_tensor("described", described, (3, n_tokens), (torch.int32,), contiguous=False)
    _token_inputs[(triton.cdiv(n_tokens, TOKEN_TILE),)](
        described, described.stride(0), tables.block_tables, tables.block_tables.stride(0), tables.newest,
        out.token_ids, out.positions, out.slots, n_tokens, BLOCK_TOKENS=block_tokens, TILE=TOKEN_TILE,
    )  # fmt: skip


def gather_tables(
    rows: torch.Tensor, lengths: torch.Tensor, tables: torch.Tensor, block_tokens: int, out: torch.Tensor
) -> None:
    """rows, lengths: (sequences,) int32; out: (sequences, columns) int32 gets as many columns as `lengths` need."""
    n_sequences, n_columns = out.shape
    require_tensor("rows", rows, (n_sequences,), (torch.int32,))
    _gather_tables[(n_sequences, triton.cdiv(n_columns, COLUMN_TILE))](
        rows, lengths, tables, tables.stride(0), out, out.stride(0), n_columns,
        BLOCK_TOKENS=block_tokens, TILE=COLUMN_TILE,
    )  # fmt: skip


@triton.jit
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
    row = tl.load(described + t, mask=inside, other=0)
    position = tl.load(described + described_stride + t, mask=inside, other=0)
    token = tl.load(described + 2 * described_stride + t, mask=inside, other=0)
    token = tl.where(token < 0, tl.load(newest + row, mask=inside, other=0), token)
    block = tl.load(tables + row.to(tl.int64) * tables_stride + position // BLOCK_TOKENS, mask=inside, other=0)
    tl.store(token_ids + t, token, mask=inside)
    tl.store(positions + t, position, mask=inside)
    tl.store(slots + t, block.to(tl.int64) * BLOCK_TOKENS + position % BLOCK_TOKENS, mask=inside)


@triton.jit
def _gather_tables(
    rows: tl.tensor,
    lengths: tl.tensor,
    tables: tl.tensor,
    tables_stride: tl.tensor,
    out: tl.tensor,
    out_stride: tl.tensor,
    n_columns: tl.tensor,
    BLOCK_TOKENS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    sequence = tl.program_id(0)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    row = tl.load(rows + sequence).to(tl.int64)
    length = tl.load(lengths + sequence)
    wanted = (column < n_columns) & (column * BLOCK_TOKENS < length)
    block = tl.load(tables + row * tables_stride + column, mask=wanted)
    tl.store(out + sequence.to(tl.int64) * out_stride + column, block, mask=wanted)


def reference_token_inputs(described: torch.Tensor, tables: RowTables, block_tokens: int) -> TokenInputs:
    """The same in torch."""
    rows, positions, tokens = described.long()
    ids = torch.where(tokens < 0, tables.newest.long()[rows], tokens)
    blocks = tables.block_tables.long()[rows, positions // block_tokens]
    return TokenInputs(ids.int(), positions.int(), blocks * block_tokens + positions % block_tokens)
