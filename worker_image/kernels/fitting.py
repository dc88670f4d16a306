"""Which tiles of attention a card can hold: the shared memory that a tile takes, against what one program may have.

Heads of up to 128 elements keep the tuned tile, which was measured on its card. Larger ones get the largest tile that
fits by arithmetic, or a sentence why none does. Pure: the card is asked by the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from worker_image.kernels.attention_tile import LEAST_HEAD, padded_head
from worker_image.kernels.checks import KernelError, power_of_two
from worker_image.kernels.decode_attention import combine_bytes
from worker_image.kernels.tuning import AttentionTile, Tuning
from worker_image.models.config import ModelConfig

TUNED_HEAD: Final = 128
"""Elements of the largest head that the table's tiles were measured with."""
ELEMENT_BYTES: Final = 2
"""Of queries, keys and values on a card."""
SCRATCH_BYTES: Final = 4 << 10
"""Block table entries, and what sums over rows pass between warps."""
ACCUMULATORS: Final = 128
"""Of a thread, at most: half its registers. With more the rest would be spilled to memory."""
LEAST_SHARED_BYTES: Final = 99 << 10
SHARED_BYTES: Final = {80: 163 << 10, 87: 163 << 10, 90: 227 << 10, 100: 227 << 10, 103: 227 << 10, 110: 227 << 10}
"""Compute capability × 10 → what one program may have, where that is more (CUDA C++ Programming Guide, table of
technical specifications per compute capability)."""


def shared_bytes_of(capability: int) -> int:
    """capability: compute capability × 10."""
    return SHARED_BYTES.get(capability, LEAST_SHARED_BYTES)


def fitted(tuning: Tuning, config: ModelConfig, limit_bytes: int) -> Tuning:
    """The same with tiles of attention that the model's heads fit. Raises KernelError where none does.

    limit_bytes: the shared memory that one program may have.
    """
    decode = tuple((rows, _fitted(tile, config, limit_bytes, decode=True)) for rows, tile in tuning.decode)
    prefill, fixed = (_fitted(tile, config, limit_bytes) for tile in (tuning.prefill, tuning.fixed_attention))
    return replace(tuning, decode=decode, prefill=prefill, fixed_attention=fixed)


def tile_bytes(tile: AttentionTile, head_dim: int) -> int:
    """At most, as Triton compiles `attend_tiles`: the queries, the keys and values that are under way, the weights."""
    columns = padded_head(head_dim)
    pairs = max(2, tile.stages - 1)
    elements = (tile.block_m + pairs * 2 * tile.block_n) * columns + tile.block_m * tile.block_n
    return elements * ELEMENT_BYTES + SCRATCH_BYTES


def _fitted(tile: AttentionTile, config: ModelConfig, limit_bytes: int, *, decode: bool = False) -> AttentionTile:
    # The decode kernel widens a tile to its group by itself.
    if config.head_dim <= TUNED_HEAD and (decode or _group(config) <= tile.block_m):
        return tile
    least = 0
    for smaller in _smaller(tile, config):
        least = tile_bytes(smaller, config.head_dim)
        if decode:
            least = max(least, combine_bytes(_group(config), config.head_dim, smaller.warps) + SCRATCH_BYTES)
        if least <= limit_bytes:
            return smaller
    raise KernelError(
        f"heads of {config.head_dim} elements, {_group(config)} query heads to a KV head, need {least >> 10} KiB of "
        f"shared memory; a program on this card may have {limit_bytes >> 10}"
    )


def _smaller(tile: AttentionTile, config: ModelConfig) -> Iterator[AttentionTile]:
    """From the largest that registers hold to the least: first fewer keys at a time, then fewer rows."""
    least_rows = max(LEAST_HEAD, power_of_two(_group(config)))
    most_rows = ACCUMULATORS * 32 * tile.warps // padded_head(config.head_dim)
    rows, keys = max(least_rows, min(tile.block_m, most_rows)), tile.block_n
    while True:
        yield replace(tile, block_m=rows, block_n=keys, stages=min(tile.stages, 3))
        if keys > 32:
            keys //= 2
        elif rows > least_rows:
            rows //= 2
        elif keys > LEAST_HEAD:
            keys //= 2
        else:
            return


def _group(config: ModelConfig) -> int:
    """Query heads of one KV head; all lie in one tile."""
    return config.n_q_heads // config.n_kv_heads
