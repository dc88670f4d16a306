"""How many bytes of a card the KV cache may have: what is left of its share once weights and the largest step are in.

Pure arithmetic; the device is asked by the caller. A step that needs more than is foreseen here fails alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worker_image.errors import SettingsError
from worker_image.models.config import ModelConfig

MIB: Final = 1 << 20
LIBRARIES_BYTES: Final = 512 * MIB
"""cuBLAS workspaces, loaded kernels and what the allocator rounds up."""
GRAPH_BYTES: Final = 12 * MIB
"""One captured step: its nodes and arguments; the activations of all graphs lie in one pool, counted as a step's."""
LOGIT_BYTES: Final = 4 + 4
"""Each logit once in the model's type and once as float32, rounded up."""


@dataclass(frozen=True)
class CardMemory:
    """As the driver reports it, with the weights loaded."""

    total_bytes: int
    free_bytes: int


def activation_bytes(config: ModelConfig, step_tokens: int, samples: int, element_bytes: int) -> int:
    """The most that one step holds at once, cache and weights aside.

    Hidden state and residual (each while its successor is written), the packed projection with the attention's output,
    and the feed-forward's two products; the widest pair of these is alive at one time. Logits come after all of them.
    """
    stream = 4 * config.hidden
    attention = config.q_rows * 2 + 2 * config.kv_rows
    feed_forward = 3 * config.ffn
    per_token = (stream + max(attention, feed_forward)) * element_bytes
    # Indices of a token: three of 4 bytes on the way in, id, position and slot on the card.
    return step_tokens * (per_token + 32) + samples * config.vocab * LOGIT_BYTES


def share_of(limit_bytes: int, own_bytes: int, free_bytes: int) -> CardMemory:
    """A share of a card as if it were a card of its own: what others hold of the rest counts only where it is all."""
    return CardMemory(limit_bytes, max(0, min(limit_bytes - own_bytes, free_bytes)))


def share_left(memory: CardMemory, activations: int, n_graphs: int) -> int:
    """Of a share, for the cache: all but weights, the largest step and graphs. Raises SettingsError for nothing."""
    used = memory.total_bytes - memory.free_bytes
    reserved = _reserved(activations, n_graphs)
    left = memory.free_bytes - reserved
    if left <= 0:
        raise SettingsError(
            f"--gpu-memory-bytes gives {memory.total_bytes // MIB} MiB of the card; weights and others use "
            f"{used // MIB}, a step needs {reserved // MIB}, and nothing is left for the KV cache. Raise it, or lower "
            "--max-num-batched-tokens."
        )
    return left


def _reserved(activations: int, n_graphs: int) -> int:
    return 2 * activations + LIBRARIES_BYTES + n_graphs * GRAPH_BYTES


def kv_bytes(memory: CardMemory, utilization: float, activations: int, n_graphs: int) -> int:
    """What the cache may take. Raises SettingsError where the share is used up already."""
    used = memory.total_bytes - memory.free_bytes
    reserved = _reserved(activations, n_graphs)
    left = int(memory.total_bytes * utilization) - used - reserved
    if left <= 0:
        raise SettingsError(
            f"the card has {memory.total_bytes // MIB} MiB; weights and others use {used // MIB}, a step needs "
            f"{reserved // MIB}, and --gpu-memory-utilization {utilization:g} leaves no KV cache. Raise it, or lower "
            "--max-num-batched-tokens."
        )
    return left
