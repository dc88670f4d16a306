"""`python -m benchmarks.engine.agreement SHAPE_FOLDER SAMPLE`: are greedy tokens those of the torch reference?

The reference reads each answer as a whole and says at every position which token it finds likeliest, in float32 and in
bf16, with the same dummy weights. Where another one was chosen, the gap between float32's two logits says whether that
was a near tie. Prints one line of JSON; a process of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from worker_image.checkpoint.dummy import DummyCheckpoint
from worker_image.models.assembly import assemble
from worker_image.models.config import ModelConfig
from worker_image.models.decoder import Decoder
from worker_image.models.kv_cache import KvCache, PrefillGroup
from worker_image.models.linear import Linear
from worker_image.models.reference_ops import ReferenceOps, ReferenceStep
from worker_image.models.weights import DummyWeights

BLOCK_TOKENS = 16


@dataclass
class Tally:
    """How often a choice was float32's own, and the largest gap where it was not."""

    equal: int = 0
    gap: float = 0.0

    def take(self, logits: torch.Tensor, chosen: torch.Tensor) -> None:
        """logits: (tokens, vocab) float32, chosen: (tokens,)."""
        gaps = logits.max(dim=-1).values - logits.gather(1, chosen[:, None])[:, 0]
        self.equal += int((gaps == 0).sum())
        self.gap = max(self.gap, float(gaps.max()))


class Upcast:
    """The engine's weights, which are drawn in its own type, in a wider one."""

    def __init__(self, weights: DummyWeights, dtype: torch.dtype) -> None:
        self._weights = weights
        self._dtype = dtype

    def take(self, *names: str) -> torch.Tensor:
        return self._weights.take(*names).to(self._dtype)


class Reference:
    """The forward pass over `ReferenceOps`, which reads one sequence at a time as a single prompt."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device, drawn: torch.dtype) -> None:
        ops = ReferenceOps(dtype, device)
        weights = Upcast(DummyWeights(config, drawn, device), dtype)
        self._ops = ops
        self._model: Decoder[Linear, ReferenceStep] = assemble(config, ops, weights, lambda done, total: None)

    @torch.inference_mode()
    def logits(self, tokens: list[int], first: int) -> torch.Tensor:
        """(tokens - first, vocab) float32: what follows each token from index `first` on, the last one left out."""
        config, device = self._model.config, self._ops.device
        n = len(tokens) - 1
        n_blocks = -(-n // BLOCK_TOKENS)
        shape = replace(config.kv_shape, element_bytes=self._ops.dtype.itemsize)
        cache = KvCache(shape, n_blocks, BLOCK_TOKENS, self._ops.dtype, device)
        positions = torch.arange(n, device=device)
        step = ReferenceStep(
            token_ids=torch.tensor(tokens[:n], device=device),
            sample_rows=positions[first:],
            positions=positions,
            slots=positions,
            groups=(PrefillGroup(slice(0, n), torch.arange(n_blocks, device=device), 0, n),),
            cache=cache,
        )
        return self._model.forward(step).float()


def compare(folder: Path, sequences: Iterable[dict[str, list[int]]], device: torch.device) -> dict[str, float]:
    """Of all answers' tokens: how many are float32's likeliest, the engine's and the bf16 reference's."""
    torch.backends.cuda.matmul.allow_tf32 = False
    config = DummyCheckpoint(folder).config
    drawn = torch.bfloat16 if device.type == "cuda" else torch.float32
    exact = Reference(config, torch.float32, device, drawn)
    narrow = Reference(config, torch.bfloat16, device, drawn)
    ours, bf16, count = Tally(), Tally(), 0
    for sequence in sequences:
        prompt, answer = sequence["prompt"], sequence["answer"]
        logits = exact.logits(prompt + answer, len(prompt) - 1)
        ours.take(logits, torch.tensor(answer, device=device))
        bf16.take(logits, narrow.logits(prompt + answer, len(prompt) - 1).argmax(dim=-1))
        count += len(answer)
    return {
        "tokens": count,
        "ours_equal": ours.equal,
        "ours_gap": ours.gap,
        "bf16_equal": bf16.equal,
        "bf16_gap": bf16.gap,
    }


def main(arguments: list[str]) -> int:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sample = json.loads(Path(arguments[1]).read_text(encoding="utf-8"))
    print(json.dumps(compare(Path(arguments[0]), sample["sequences"], device)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
