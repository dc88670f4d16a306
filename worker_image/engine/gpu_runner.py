"""Runs steps on a CUDA card: `launch` describes the step to the card and returns, `wait` reads its tokens.

A step that only decodes replays the CUDA graph of its size where there is one: inputs from the card's own tables,
forward pass, sampling, and the newest tokens kept for the next step. Other steps run kernel by kernel. Nothing but
`wait` waits for the card, and nothing is read back but through pinned memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from worker_image.engine.batch import Batch
from worker_image.engine.card_results import Flight, ResultBuffers, logprobs_asked
from worker_image.engine.card_rows import CardRows
from worker_image.engine.card_step import DECODE_FIELDS, DecodeBuffers, StepBuffers, mixed_buffers
from worker_image.engine.graphs import Capture, DecodeGraphs, bucket_sizes, unowned
from worker_image.engine.host_cache import HostCache
from worker_image.engine.sampler import adjust
from worker_image.engine.sequence import Sequence
from worker_image.engine.upload import ALIGN, Upload
from worker_image.kernels.prefill_attention import Chunk
from worker_image.kernels.sampling import sample
from worker_image.kernels.step_inputs import gather_tables, keep_newest, sampling_inputs, token_inputs
from worker_image.kernels.triton_ops import KvTensors, Steps, StepTokens, TritonStep
from worker_image.models.decoder import Decoder

STEPS_A_CAPTURE: Final = 8
"""While requests run, one graph is made in so many decode steps; a capture takes some tens of milliseconds."""
STEPS_UNDER_WAY: Final = 4
"""One that runs, two that wait behind it, one that is described."""
WORDS_A_TOKEN: Final = 3
WORDS_A_SEQUENCE: Final = 5


@dataclass(frozen=True)
class RunnerSizes:
    """What buffers are made for."""

    max_num_seqs: int
    step_tokens: int
    block_tokens: int
    n_columns: int
    """Blocks of the longest sequence."""


class GpuRunner:
    """One thread calls it, on one stream."""

    depth = 2
    """A step with prefill takes longer to launch than a step of decodes takes to run: one more waits behind that."""

    def __init__(
        self,
        model: Decoder[torch.Tensor, TritonStep],
        steps: Steps,
        cache: KvTensors,
        sizes: RunnerSizes,
        capture: Capture | None,
        host: HostCache | None = None,
    ) -> None:
        """capture: None runs every step kernel by kernel. host: where the scheduler has room to save to."""
        device = cache.data.device
        self._model = model
        self._steps = steps
        self._cache = cache
        self._sizes = sizes
        self._host = host
        self._rows = CardRows(sizes.max_num_seqs, sizes.n_columns, device)
        self._decode = DecodeBuffers(sizes.max_num_seqs, sizes.n_columns, device)
        decode_words = DECODE_FIELDS * self._decode.max_rows
        mixed_words = WORDS_A_TOKEN * sizes.step_tokens + WORDS_A_SEQUENCE * (sizes.max_num_seqs + ALIGN)
        self._upload = Upload(max(decode_words, mixed_words), device, STEPS_UNDER_WAY)
        self._results = ResultBuffers(sizes.max_num_seqs, device, STEPS_UNDER_WAY)
        self._graphs = DecodeGraphs(bucket_sizes(self._decode.max_rows), self._run, capture)
        self._logits: torch.Tensor | None = None
        self._captured_logits: dict[int, torch.Tensor] = {}
        self._until_capture = 0

    @torch.inference_mode()
    def launch(self, batch: Batch) -> Flight:
        if batch.saves or batch.restores:
            assert self._host is not None, "what the scheduler saves has room in host memory"
            self._host.save(batch.saves)
            self._host.restore(batch.restores)
        self._cache.copy_blocks(batch.copies)
        self._rows.apply(batch.tables, batch.joined)
        self._upload.begin()
        step, logits = self._mixed(batch) if batch.prefills else self._decodes(batch.decodes)
        self._readjust(batch.sampling, step, logits)
        asked = logprobs_asked(batch.sampling)
        flight = self._results.fetch(len(batch.sampling), step.choice.tokens, logits, asked)
        if not batch.prefills:
            self._capture_sometimes()
        return flight

    def prepare(self) -> bool:
        """Makes one more graph while there is nothing to run; False when there is none left to make."""
        if not self._graphs.complete:
            self._capture()
        return not self._graphs.complete

    def recover(self) -> None:
        """Rows join again with all they need. Raises RuntimeError where the card is lost."""
        torch.cuda.synchronize()
        torch.cuda.empty_cache()

    def _decodes(self, decodes: tuple[Sequence, ...]) -> tuple[StepBuffers, torch.Tensor]:
        size = self._graphs.size_for(len(decodes))
        self._decode.describe(decodes, size, self._upload)
        self._upload.send()
        if self._graphs.replay(size):
            return self._decode.view(size), self._captured_logits[size]
        return self._decode.view(size), self._run(size)

    def _run(self, size: int) -> torch.Tensor:
        """A decode step on the static buffers, as described last; returns its logits."""
        step = self._decode.view(size)
        self._fill(step)
        made = self._steps.decode(_tokens(step), step.tables, step.lengths)
        self._logits = logits = self._model.forward(made)
        self._choose(step, logits)
        return logits

    def _mixed(self, batch: Batch) -> tuple[StepBuffers, torch.Tensor]:
        step = mixed_buffers(batch, self._sizes.n_columns, self._upload, self._cache.data.device)
        self._upload.send()
        self._fill(step)
        made = self._steps.mixed(_tokens(step), step.tables, step.lengths, _chunks(batch))
        logits = self._model.forward(made)
        self._choose(step, logits)
        return step, logits

    def _fill(self, step: StepBuffers) -> None:
        tables, page = self._rows.tables, self._sizes.block_tokens
        token_inputs(step.described, tables, page, step.inputs)
        gather_tables(step.rows, step.lengths, tables.blocks, page, step.tables)
        sampling_inputs(step.sampling_rows, step.drawn, tables, step.choice.parameters)

    def _choose(self, step: StepBuffers, logits: torch.Tensor) -> None:
        choice = step.choice
        sample(logits, choice.parameters, choice.tokens, choice.logprobs)
        keep_newest(step.sampling_rows, choice.tokens, self._rows.tables.newest)

    def _readjust(self, sequences: tuple[Sequence, ...], step: StepBuffers, logits: torch.Tensor) -> None:
        """Chooses again where requests change their logits: rare enough to be no part of any graph."""
        changing = [i for i, sequence in enumerate(sequences) if sequence.sampling.changes_logits]
        if not changing:
            return
        changed = logits.to(torch.float32, copy=True)
        for i in changing:
            sequence = sequences[i]
            adjust(changed[i], sequence, sequence.computed - sequence.n_prompt)
        self._choose(step, changed)

    def _capture_sometimes(self) -> None:
        self._until_capture -= 1
        if self._until_capture < 0 and not self._graphs.complete:
            self._capture()
            self._until_capture = STEPS_A_CAPTURE

    @torch.inference_mode()
    def _capture(self) -> None:
        self._upload.begin()
        self._decode.describe_padding(self._upload)
        self._upload.send()
        size = self._graphs.capture_next()
        if size is not None and self._logits is not None:
            self._captured_logits[size] = unowned(self._logits)
        self._logits = None


def _tokens(step: StepBuffers) -> StepTokens:
    inputs = step.inputs
    return StepTokens(inputs.token_ids, inputs.positions, inputs.slots, step.sample_at)


def _chunks(batch: Batch) -> list[Chunk]:
    """The prefill kernel's view of the chunks; their rows come behind the decodes'."""
    at, chunks = len(batch.decodes), []
    for chunk in batch.prefills:
        chunks.append(Chunk(at, chunk.length, chunk.start + chunk.length))
        at += chunk.length
    return chunks
