"""What it costs to compute a token's keys and values again, and to bring them back from host memory. Pure arithmetic.

The rates are of the kind of device, not measured: between the two costs of a card lies a factor of three or more, so
that only short sequences are decided by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worker_image.engine.host_blocks import SwapCosts
from worker_image.engine.messages import EngineSettings
from worker_image.errors import SettingsError
from worker_image.models.config import ModelConfig

CPU_FLOPS: Final = 5e10
"""Of a core, in float32."""
CPU_COPY_BYTES_PER_S: Final = 4e9
CARD_FLOPS: Final = 4e14
CARD_COPY_BYTES_PER_S: Final = 2e10
"""A PCIe link of the fourth generation; newer ones take half the time."""
FIXED_S: Final = 2e-3
"""Launching the copies, and the step in which one token is computed."""


@dataclass(frozen=True, slots=True)
class Rates:
    flops: float
    copy_bytes_per_s: float


def swap_slots(settings: EngineSettings, bytes_per_token: int, free_bytes: int) -> int:
    """Blocks that fit into the host memory that is set aside. Raises SettingsError where there is less of it."""
    if settings.swap_bytes > free_bytes:
        raise SettingsError(
            f"--kv-swap-bytes is {settings.swap_bytes}; {free_bytes} bytes of memory are free. Lower it, or raise the "
            "memory limit."
        )
    return settings.swap_bytes // (bytes_per_token * settings.block_tokens)


def swap_costs(config: ModelConfig, bytes_per_token: int, rates: Rates) -> SwapCosts:
    """Attention to what is before is left out: it makes computing again dearer still."""
    attention = config.hidden * (2 * config.q_rows + 2 * config.kv_rows)
    weights = config.n_layers * (attention + 3 * config.hidden * config.ffn)
    return SwapCosts(2 * weights / rates.flops, 2 * bytes_per_token / rates.copy_bytes_per_s, FIXED_S)
