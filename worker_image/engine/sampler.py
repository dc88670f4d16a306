"""Chooses each row's next token from its logits. The torch reference; order of the steps as in vLLM:
penalties → temperature → min-p, top-k, top-p → draw.

A request's seed gives its own generator, so what shares the batch does not change its draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from worker_image.engine.messages import Logprobs
from worker_image.engine.scheduler import Sequence


@dataclass(frozen=True)
class Sampled:
    token: int
    logprobs: Logprobs | None


class Sampler:
    """Keeps one random generator per seeded request that is alive."""

    def __init__(self) -> None:
        self._generators: dict[int, torch.Generator] = {}

    def forget(self, request_id: int) -> None:
        self._generators.pop(request_id, None)

    def sample(self, logits: torch.Tensor, sequences: list[Sequence]) -> list[Sampled]:
        """logits: (sequences, vocab) float32; rows may be overwritten."""
        greedy: list[int] = logits.argmax(dim=-1).tolist()
        return [self._one(row, token, seq) for row, token, seq in zip(logits, greedy, sequences, strict=True)]

    def _one(self, logits: torch.Tensor, likeliest: int, sequence: Sequence) -> Sampled:
        sampling = sequence.sampling
        # Reported probabilities are the model's own, before any of the request's adjustments.
        scores = torch.log_softmax(logits, dim=-1) if sampling.top_logprobs is not None else None
        if _penalise(logits, sequence):
            likeliest = int(logits.argmax())
        token = likeliest if sampling.greedy else self._draw(logits, sequence)
        return Sampled(token, None if scores is None else _logprobs(scores, token, sampling.top_logprobs or 0))

    def _draw(self, logits: torch.Tensor, sequence: Sequence) -> int:
        kept, ids = _candidates(logits / sequence.sampling.temperature, sequence)
        probabilities = torch.softmax(kept, dim=-1)
        # Exponential race: argmax of p / e draws from p (one pass, no cumulative sum).
        noise = torch.empty_like(probabilities).exponential_(generator=self._generator(sequence))
        return int(ids[(probabilities / noise).argmax()])

    def _generator(self, sequence: Sequence) -> torch.Generator | None:
        seed = sequence.sampling.seed
        if seed is None:
            return None
        generator = self._generators.get(sequence.request_id)
        if generator is None:
            generator = torch.Generator().manual_seed(seed)
            self._generators[sequence.request_id] = generator
        return generator


def _penalise(logits: torch.Tensor, sequence: Sequence) -> bool:
    """Mutates `logits`; False where the request asks for no penalty."""
    sampling = sequence.sampling
    if sampling.presence_penalty or sampling.frequency_penalty:
        generated = torch.tensor(sequence.tokens[sequence.n_prompt :], dtype=torch.int64)
        ids, counts = torch.unique(generated, return_counts=True)
        logits[ids] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    if sampling.repetition_penalty != 1.0:
        ids = torch.tensor(sorted(set(sequence.tokens)))
        seen = logits[ids]
        factor = sampling.repetition_penalty
        logits[ids] = torch.where(seen > 0, seen / factor, seen * factor)
    return bool(sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1.0)


def _candidates(logits: torch.Tensor, sequence: Sequence) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits that may be drawn and their token ids, likeliest first where any filter is set."""
    sampling = sequence.sampling
    if sampling.top_k == 0 and sampling.top_p >= 1.0 and sampling.min_p == 0.0:
        return logits, torch.arange(logits.numel())
    kept, ids = logits.topk(sampling.top_k) if 0 < sampling.top_k < logits.numel() else logits.sort(descending=True)
    probabilities = torch.softmax(kept, dim=-1)
    keep = probabilities >= sampling.min_p * probabilities[0]
    # A token stays while the mass before it is below top_p, so the likeliest always stays.
    keep &= probabilities.cumsum(0) - probabilities < sampling.top_p
    keep[0] = True
    return kept[keep], ids[keep]


def _logprobs(scores: torch.Tensor, token: int, n_top: int) -> Logprobs:
    values, ids = scores.topk(n_top)
    return Logprobs(float(scores[token]), list(zip(ids.tolist(), values.tolist(), strict=True)))
