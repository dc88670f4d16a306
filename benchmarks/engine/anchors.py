"""What vLLM reached on the same kinds of card with the same workloads, and by how much we mean to pass it.

Data only. vLLM 0.22.1, torch 2.11 (CUDA 13.0), 16 CPU cores, dummy weights, `max_model_len` 4096,
`gpu_memory_utilization` 0.9, all else its defaults, host clock around the whole blocking call. A figure holds only on
its kind of card, so a goal is a ratio to the figure of the card at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PEER: Final = "vLLM 0.22.1 on the same kind of card"
TRANSFORMERS: Final = "transformers generate, same run"


@dataclass(frozen=True, slots=True)
class Anchor:
    """The peer's figure on each kind of card, and the goal as a ratio to it (None: no goal)."""

    h100: float | None
    h200: float | None
    ratio: float | None = None

    def figure(self, card: str) -> float | None:
        """`card` is the device's name as torch gives it; None for a kind that was not measured."""
        return self.h200 if "H200" in card else self.h100 if "H100" in card else None

    def goal(self, card: str) -> float | None:
        figure = self.figure(card)
        return None if figure is None or self.ratio is None else figure * self.ratio


ANCHORS: Final[Mapping[tuple[str, str], Anchor]] = {
    ("w1", "output_tokens_per_s"): Anchor(18_760, 23_915, 1.20),
    ("w2", "output_tokens_per_s"): Anchor(5_146, 5_927, 1.15),
    ("w3_batch1", "ttft_ms"): Anchor(29.6, 25.7, 0.90),
    ("w3_batch1", "tpot_ms"): Anchor(6.57, 4.97, 0.83),
    ("w3_batch8", "output_tokens_per_s"): Anchor(1_028, 1_325, 1.12),
    ("w3_batch32", "output_tokens_per_s"): Anchor(2_831, 3_452, 1.12),
    ("w3_batch128", "output_tokens_per_s"): Anchor(4_946, 5_694, 1.12),
    ("w4_rate16", "ttft_p99_ms"): Anchor(188, 153, 0.85),
    ("w4_rate16", "tpot_p99_ms"): Anchor(20.5, 15.0, 0.85),
    ("w4_rate24", "ttft_p99_ms"): Anchor(418, 323, 0.80),
    ("w4_rate24", "tpot_p99_ms"): Anchor(65.6, 40.7, 0.75),
    ("w4_rate8", "ttft_p99_ms"): Anchor(361, None),
    ("w4_rate8", "tpot_p99_ms"): Anchor(10.7, None),
    ("w5", "output_tokens_per_s"): Anchor(9_104, 9_554, 1.20),
    ("cold_start_empty", "total_s"): Anchor(79.8, 68.2),
    ("cold_start", "total_s"): Anchor(62.6, 40.7),
    ("deterministic", "throughput_kept"): Anchor(None, 0.72),
    ("deterministic", "tpot_ratio"): Anchor(None, 3.6),
    ("ceilings", "copy_gb_per_s"): Anchor(3_020, 4_256),
    ("ceilings", "matmul_tflop_per_s"): Anchor(719, 685),
}

COLD_START_GOAL_S: Final = 8.0
DETERMINISTIC_KEEPS: Final = 0.90
DETERMINISTIC_TPOT_RATIO: Final = 1.10
KV_WASTE_GOAL: Final = 0.04
