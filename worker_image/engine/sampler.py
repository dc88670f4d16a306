"""Chooses each row's next token from its logits. The torch reference; order of the steps as in vLLM:
bias, penalties, what may not be chosen → temperature → min-p, top-k, top-p → draw.

The draw's noise is counted (`noise`), so a token depends on its own sequence and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import Final

import numpy as np
import torch

from worker_image.engine.batch import Sampled
from worker_image.engine.grammar import Matcher
from worker_image.engine.messages import Logprobs, Sampling
from worker_image.engine.noise import exponential
from worker_image.engine.sequence import Sequence

FIRST_LOOK: Final = 1024
"""Candidates among which a filter nearly always ends."""


def sample(logits: torch.Tensor, sequences: Rows[Sequence]) -> Sampled:
    """logits: (sequences, vocab) float32 on the CPU, one row for each; mutated. All tokens so far must be known."""
    # Reported probabilities are the model's own, before any of the request's adjustments.
    scores = {
        i: torch.log_softmax(logits[i], dim=-1)
        for i, sequence in enumerate(sequences)
        if sequence.sampling.top_logprobs is not None
    }
    for row, sequence in zip(logits, sequences, strict=True):
        adjust(row, sequence, sequence.n_generated)
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    for i, sequence in enumerate(sequences):
        if not sequence.sampling.greedy:
            tokens[i] = _draw(logits[i], sequence)
    return Sampled(
        tokens, {i: _logprobs(row, tokens[i], sequences[i].sampling.top_logprobs or 0) for i, row in scores.items()}
    )


def adjust(logits: torch.Tensor, sequence: Sequence, n_generated: int) -> None:
    """What the request adds to its logits, or forbids. Mutates logits: (vocab,) float32 on any device.

    n_generated: tokens of the answer before the one to choose, those on their way included.
    """
    sampling = sequence.sampling
    if sampling.logit_bias:
        ids, amounts = zip(*sampling.logit_bias, strict=True)
        logits[list(ids)] += torch.tensor(amounts, device=logits.device)
    if sampling.penalises:
        _penalise(logits, sequence)
    if n_generated < sampling.min_tokens and sequence.matcher is None:
        # A grammar has its own end, at which nothing else is allowed.
        logits[list(sequence.stop_ids)] = float("-inf")
    if sequence.matcher is not None:
        _forbid(logits, sequence.matcher)


def _penalise(logits: torch.Tensor, sequence: Sequence) -> None:
    """Presence and frequency as OpenAI defines them, over the answer; repetition (arXiv:1909.05858), over all."""
    sampling = sequence.sampling
    if sampling.presence_penalty or sampling.frequency_penalty:
        generated = torch.tensor(sequence.tokens[sequence.n_prompt :], dtype=torch.int64, device=logits.device)
        ids, counts = torch.unique(generated, return_counts=True)
        logits[ids] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    if sampling.repetition_penalty != 1.0:
        ids = torch.tensor(sorted(set(sequence.tokens)), device=logits.device)
        seen = logits[ids]
        factor = sampling.repetition_penalty
        logits[ids] = torch.where(seen > 0, seen / factor, seen * factor)


def _forbid(logits: torch.Tensor, matcher: Matcher) -> None:
    """Whatever the grammar does not allow next. Ids past the tokenizer's vocabulary are padding of the matrix."""
    mask = np.empty(-(-logits.numel() // 32), np.int32)
    matcher.fill(mask)
    allowed = np.unpackbits(mask.view(np.uint8), bitorder="little")[: logits.numel()]
    logits.masked_fill_(torch.from_numpy(allowed == 0).to(logits.device), float("-inf"))


def _draw(logits: torch.Tensor, sequence: Sequence) -> int:
    kept, ids = _candidates(logits / sequence.sampling.temperature, sequence.sampling)
    probabilities = torch.softmax(kept, dim=-1)
    # Exponential race: argmax of p / e draws from p (one pass, no cumulative sum).
    noise = exponential(sequence.seed, len(sequence.tokens), ids)
    return int(ids[(probabilities / noise).argmax()])


def _candidates(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits that may be drawn and their token ids, likeliest first where any filter is set."""
    if sampling.top_k == 0 and sampling.top_p >= 1.0 and sampling.min_p == 0.0:
        return logits, torch.arange(logits.numel())
    all_kept = logits.topk(sampling.top_k).values if 0 < sampling.top_k < logits.numel() else logits
    total = torch.logsumexp(all_kept, dim=-1)
    kept, ids = _likeliest(logits, sampling, all_kept.numel(), total)
    probabilities = (kept - total).exp()
    keep = probabilities >= sampling.min_p * probabilities[0]
    # A token stays while the mass before it is below top_p, so the likeliest always stays.
    keep &= probabilities.cumsum(0) - probabilities < sampling.top_p
    keep[0] = True
    return kept[keep], ids[keep]


def _likeliest(
    logits: torch.Tensor, sampling: Sampling, most: int, total: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `most` likeliest in their order, or fewer where the filters keep none of the rest: sorting all is slow."""
    if most > FIRST_LOOK:
        kept, ids = logits.topk(FIRST_LOOK)
        probabilities = (kept - total).exp()
        if probabilities.sum() >= sampling.top_p or probabilities[-1] < sampling.min_p * probabilities[0]:
            return kept, ids
    return logits.topk(most) if most < logits.numel() else logits.sort(descending=True)


def _logprobs(scores: torch.Tensor, token: int, n_top: int) -> Logprobs:
    values, ids = scores.topk(n_top)
    return Logprobs(float(scores[token]), list(zip(ids.tolist(), values.tolist(), strict=True)))
