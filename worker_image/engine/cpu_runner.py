"""Runs steps on CPU cores, in torch: the reference that the GPU's runner is checked against.

Turns a batch into tensors, runs the model and samples, all inside `launch`. Holds the KV cache's tensors; which blocks
a sequence has is the scheduler's word.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Final

import torch

from worker_image.engine.batch import Batch, Chunk, Sampled
from worker_image.engine.host_cache import HostCache
from worker_image.engine.sampler import sample
from worker_image.models.decoder import Decoder
from worker_image.models.kv_cache import AttentionGroup, DecodeGroup, KvCache, PrefillGroup
from worker_image.models.linear import Linear
from worker_image.models.reference_ops import ReferenceStep

GATHERED_BYTES: Final = 64 << 20
"""Keys and values that are attended together, unless it is the context of a single request."""
PADDED_TOKENS: Final = 128
"""Shorter requests are attended as if they had so many: a group of their own would cost more."""


@dataclass(frozen=True, slots=True)
class Done:
    """A step that ran already."""

    sampled: Sampled

    def wait(self) -> Sampled:
        return self.sampled


class CpuRunner:
    """Keeps nothing by row: its tables are the sequences' own, as all their tokens are known at launch."""

    depth = 0

    def __init__(self, model: Decoder[Linear, ReferenceStep], cache: KvCache, host: HostCache | None = None) -> None:
        """host: where the scheduler has room to save to."""
        self._model = model
        self._cache = cache
        self._host = host

    @torch.inference_mode()
    def launch(self, batch: Batch) -> Done:
        if batch.saves or batch.restores:
            assert self._host is not None, "what the scheduler saves has room in host memory"
            self._host.save(batch.saves)
            self._host.restore(batch.restores)
        for source, target in batch.copies:
            for tensor in (self._cache.keys, self._cache.values):
                tensor[:, target] = tensor[:, source]
        chunks = [*(Chunk(s, s.computed - 1, 1, samples=True) for s in batch.decodes), *batch.prefills]
        logits = self._model.forward(self._tensors(chunks, len(batch.decodes)))
        return Done(sample(logits, batch.sampling))

    def prepare(self) -> bool:
        return False

    def recover(self) -> None:
        """Nothing to forget: memory went back to the allocator with the tensors."""

    def _tensors(self, chunks: list[Chunk], n_decodes: int) -> ReferenceStep:
        tokens = chain.from_iterable(c.sequence.tokens[c.start : c.start + c.length] for c in chunks)
        positions = chain.from_iterable(range(c.start, c.start + c.length) for c in chunks)
        ends = torch.tensor([chunk.length for chunk in chunks]).cumsum(0)
        return ReferenceStep(
            token_ids=torch.tensor(list(tokens)),
            positions=torch.tensor(list(positions)),
            slots=torch.tensor(list(chain.from_iterable(self._slots(chunk) for chunk in chunks))),
            groups=tuple(self._groups(chunks, n_decodes)),
            cache=self._cache,
            sample_rows=ends[[i for i, chunk in enumerate(chunks) if chunk.samples]] - 1,
        )

    def _slots(self, chunk: Chunk) -> list[int]:
        size = self._cache.block_tokens
        blocks = chunk.sequence.blocks
        return [blocks[p // size] * size + p % size for p in range(chunk.start, chunk.start + chunk.length)]

    def _groups(self, chunks: list[Chunk], n_decodes: int) -> list[AttentionGroup]:
        groups: list[AttentionGroup] = [self._decode_group(chunks, rows) for rows in self._alike(chunks[:n_decodes])]
        row = n_decodes
        for chunk in chunks[n_decodes:]:
            end = chunk.start + chunk.length
            table = torch.tensor(chunk.sequence.blocks[: _blocks(end, self._cache.block_tokens)])
            groups.append(PrefillGroup(slice(row, row + chunk.length), table, chunk.start, chunk.length))
            row += chunk.length
        return groups

    def _alike(self, decodes: list[Chunk]) -> list[list[int]]:
        """Rows whose tables may be padded to the longest of them: it at most doubles them, or costs little."""
        size, shape = self._cache.block_tokens, self._cache.shape
        most = GATHERED_BYTES // (size * shape.bytes_per_token // shape.n_layers)
        groups: list[list[int]] = []
        longest = 0
        for row in sorted(range(len(decodes)), key=lambda row: decodes[row].start):
            n_table = _blocks(decodes[row].start + 1, size)
            if n_table > longest or (len(groups[-1]) + 1) * n_table > most:
                groups.append([])
                longest = max(2 * n_table, _blocks(PADDED_TOKENS, size))
            groups[-1].append(row)
        return groups

    def _decode_group(self, chunks: list[Chunk], rows: list[int]) -> DecodeGroup:
        """rows: the longest last."""
        lengths = [chunks[row].start + 1 for row in rows]
        n_table = _blocks(lengths[-1], self._cache.block_tokens)
        # Padding repeats block 0; the mask hides it.
        tables = [(chunks[row].sequence.blocks + [0] * n_table)[:n_table] for row in rows]
        return DecodeGroup(torch.tensor(rows), torch.tensor(tables), torch.tensor(lengths))


def _blocks(n_tokens: int, block_tokens: int) -> int:
    return -(-n_tokens // block_tokens)
