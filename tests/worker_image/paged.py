"""Runs a decoder through the paged cache without an engine: prompts in chunks, then greedy decodes in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from worker_image.models.decoder import Decoder
from worker_image.models.kv_cache import AttentionGroup, DecodeGroup, KvCache, PrefillGroup
from worker_image.models.linear import Linear
from worker_image.models.reference_ops import ReferenceStep

BLOCK_TOKENS = 4


@dataclass
class Running:
    tokens: list[int]
    blocks: list[int]
    computed: int = 0


class Paged:
    """Sequence i owns the blocks i, i + n, i + 2n …, so that no table is a run of neighbours."""

    def __init__(self, decoder: Decoder[Linear, ReferenceStep], n_seqs: int, longest: int) -> None:
        self._decoder = decoder
        n_table = -(-longest // BLOCK_TOKENS)
        ops = decoder.ops
        self._cache = KvCache(decoder.config.kv_shape, n_seqs * n_table, BLOCK_TOKENS, ops.dtype, ops.device)
        self._tables = [list(range(i, n_seqs * n_table, n_seqs)) for i in range(n_seqs)]

    @torch.inference_mode()
    def greedy(self, prompts: Sequence[list[int]], n_new: int, chunk: int) -> tuple[list[list[int]], torch.Tensor]:
        """The tokens generated, and the logits that chose them: (prompts, n_new, vocab)."""
        running = [Running(list(prompt), table) for prompt, table in zip(prompts, self._tables, strict=True)]
        for sequence in running:
            while sequence.computed < len(sequence.tokens) - 1:
                length = min(chunk, len(sequence.tokens) - 1 - sequence.computed)
                self._step([sequence], length)
        logits = []
        for _ in range(n_new):
            logits.append(self._step(running, 1))
            for sequence, row in zip(running, logits[-1], strict=True):
                sequence.tokens.append(int(row.argmax()))
        return [sequence.tokens[-n_new:] for sequence in running], torch.stack(logits, dim=1)

    def _step(self, running: list[Running], length: int) -> torch.Tensor:
        device = self._cache.keys.device
        positions = [list(range(s.computed, s.computed + length)) for s in running]
        flat = [(s, p) for s, own in zip(running, positions, strict=True) for p in own]
        slots = [s.blocks[p // BLOCK_TOKENS] * BLOCK_TOKENS + p % BLOCK_TOKENS for s, p in flat]
        step = ReferenceStep(
            token_ids=torch.tensor([s.tokens[p] for s, p in flat], device=device),
            sample_rows=torch.arange(length - 1, len(flat), length, device=device),
            positions=torch.tensor([p for _, p in flat], device=device),
            slots=torch.tensor(slots, device=device),
            groups=(self._group(running, length),),
            cache=self._cache,
        )
        for sequence in running:
            sequence.computed += length
        return self._decoder.forward(step)

    def _group(self, running: list[Running], length: int) -> AttentionGroup:
        device = self._cache.keys.device
        rows = slice(0, len(running) * length)
        if length > 1:
            (sequence,) = running
            table = sequence.blocks[: -(-(sequence.computed + length) // BLOCK_TOKENS)]
            return PrefillGroup(rows, torch.tensor(table, device=device), sequence.computed, length)
        lengths = torch.tensor([s.computed + 1 for s in running], device=device)
        tables = torch.tensor([s.blocks for s in running], device=device)
        return DecodeGroup(rows, tables, lengths)
