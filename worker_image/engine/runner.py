"""Turns a scheduled batch into tensors, runs the model on them and gives back logits.

Holds the KV cache's tensors; which blocks a sequence has is the scheduler's word.
"""

from __future__ import annotations

from itertools import chain

import torch

from worker_image.engine.scheduler import Batch, Chunk
from worker_image.models.decoder import Decoder
from worker_image.models.kv_cache import AttentionGroup, DecodeGroup, KvCache, PrefillGroup
from worker_image.models.linear import Linear
from worker_image.models.reference_ops import ReferenceStep


class Runner:
    def __init__(self, model: Decoder[Linear, ReferenceStep], cache: KvCache) -> None:
        self._model = model
        self._cache = cache

    def run(self, batch: Batch) -> torch.Tensor:
        """Logits (sampling chunks, vocab) float32, in the order of `batch.sampling_chunks`."""
        return self._model.forward(self._tensors(batch))

    def _tensors(self, batch: Batch) -> ReferenceStep:
        chunks = batch.chunks
        tokens = chain.from_iterable(c.sequence.tokens[c.start : c.start + c.length] for c in chunks)
        positions = chain.from_iterable(range(c.start, c.start + c.length) for c in chunks)
        ends = torch.tensor([chunk.length for chunk in chunks]).cumsum(0)
        return ReferenceStep(
            token_ids=torch.tensor(list(tokens)),
            positions=torch.tensor(list(positions)),
            slots=torch.tensor(list(chain.from_iterable(self._slots(chunk) for chunk in chunks))),
            groups=tuple(self._groups(chunks)),
            cache=self._cache,
            sample_rows=ends[[i for i, chunk in enumerate(chunks) if chunk.samples]] - 1,
        )

    def _slots(self, chunk: Chunk) -> list[int]:
        size = self._cache.block_tokens
        blocks = chunk.sequence.blocks
        return [blocks[p // size] * size + p % size for p in range(chunk.start, chunk.start + chunk.length)]

    def _groups(self, chunks: tuple[Chunk, ...]) -> list[AttentionGroup]:
        single = [chunk for chunk in chunks if chunk.length == 1]
        # Chunks of one token come first, whether they decode or end a prefill.
        groups: list[AttentionGroup] = [self._decode_group(single)] if single else []
        row = len(single)
        for chunk in chunks[len(single) :]:
            end = chunk.start + chunk.length
            table = torch.tensor(chunk.sequence.blocks[: -(-end // self._cache.block_tokens)])
            groups.append(PrefillGroup(slice(row, row + chunk.length), table, chunk.start, chunk.length))
            row += chunk.length
        return groups

    def _decode_group(self, chunks: list[Chunk]) -> DecodeGroup:
        lengths = [chunk.start + 1 for chunk in chunks]
        n_table = -(-max(lengths) // self._cache.block_tokens)
        # Padding repeats block 0; the mask hides it.
        tables = [(chunk.sequence.blocks + [0] * n_table)[:n_table] for chunk in chunks]
        return DecodeGroup(slice(0, len(chunks)), torch.tensor(tables), torch.tensor(lengths), self._cache)
