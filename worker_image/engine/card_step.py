"""A step as the card reads it: the words that describe it, and the buffers that are filled from them on the card.

Decode steps use buffers that never move, as graphs need; a step with prefill has its own. Computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from worker_image.engine.batch import Batch
from worker_image.engine.sequence import Sequence
from worker_image.engine.upload import ALIGN, Upload
from worker_image.kernels.sampling import SamplingParameters
from worker_image.kernels.step_inputs import TokenInputs

PADDING: Final = -1
NEWEST: Final = -1
DECODE_FIELDS: Final = 4
"""Row, index, token, length: one array of each, as long as the largest batch."""


@dataclass(frozen=True)
class Choice:
    """Where sampling writes, for (samples,) rows; `parameters` are filled from the rows' own."""

    parameters: SamplingParameters
    tokens: torch.Tensor
    """int64."""
    logprobs: torch.Tensor
    """float32: of the chosen token."""

    @classmethod
    def empty(cls, n: int, device: torch.device) -> Choice:
        def of(dtype: torch.dtype) -> torch.Tensor:
            return torch.empty(n, dtype=dtype, device=device)

        floats = [of(torch.float32) for _ in range(4)]
        parameters = SamplingParameters(
            temperature=floats[0], top_k=of(torch.int32), top_p=floats[1], min_p=floats[2],
            seeds=of(torch.int64), positions=of(torch.int64),
        )  # fmt: skip
        return cls(parameters, of(torch.int64), floats[3])

    def first(self, n: int) -> Choice:
        p = self.parameters
        parameters = SamplingParameters(
            p.temperature[:n], p.top_k[:n], p.top_p[:n], p.min_p[:n], p.seeds[:n], p.positions[:n]
        )
        return Choice(parameters, self.tokens[:n], self.logprobs[:n])


@dataclass(frozen=True)
class StepBuffers:
    """One step on the card: described by the host, the rest filled there."""

    described: torch.Tensor
    """(3, tokens) int32, see `token_inputs`."""
    rows: torch.Tensor
    """(sequences,) int32: decodes first, then one for each chunk."""
    lengths: torch.Tensor
    """(sequences,) int32: tokens in the cache once the step is written; 0 for padding."""
    sampling_rows: torch.Tensor
    """(samples,) int32."""
    drawn: torch.Tensor
    """(samples,) int32: the index of the token that is drawn."""
    sample_at: torch.Tensor | None
    """(samples,) int32: which of the step's tokens are sampled from; None: all, in order."""
    inputs: TokenInputs
    tables: torch.Tensor
    """(sequences, columns) int32."""
    choice: Choice


def row_of(sequence: Sequence) -> int:
    assert sequence.row is not None, "whoever is in a step has a row"
    return sequence.row


def empty_inputs(n: int, device: torch.device) -> TokenInputs:
    ids, positions, slots = (torch.empty(n, dtype=torch.int64, device=device) for _ in range(3))
    return TokenInputs(ids, positions, slots)


class DecodeBuffers:
    """The static buffers of decode steps, and their views by size."""

    def __init__(self, max_rows: int, n_columns: int, device: torch.device) -> None:
        self.max_rows = -(-max_rows // ALIGN) * ALIGN
        self._inputs = empty_inputs(self.max_rows, device)
        self._tables = torch.zeros((self.max_rows, n_columns), dtype=torch.int32, device=device)
        self._choice = Choice.empty(self.max_rows, device)
        self._views: dict[int, StepBuffers] = {}
        self._rows_of: tuple[Sequence, ...] = ()
        self._rows: npt.NDArray[np.int32] = np.empty(0, np.int32)

    def describe(self, decodes: tuple[Sequence, ...], size: int, upload: Upload) -> None:
        """Writes the words of a step; the rest of its `size` is padding. Its `upload` has begun and holds no more."""
        words = self._words(size, upload)
        n = len(decodes)
        if decodes is not self._rows_of:
            self._rows = np.fromiter((sequence.row for sequence in decodes), np.int32, n)
            self._rows_of = decodes
        lengths = np.fromiter((sequence.computed for sequence in decodes), np.int32, n)
        words[0, :n] = self._rows
        words[1, :n] = lengths - 1
        words[3, :n] = lengths

    def describe_padding(self, upload: Upload) -> None:
        """A step of any size that touches nothing."""
        self._words(self.max_rows, upload)

    def _words(self, size: int, upload: Upload) -> npt.NDArray[np.int32]:
        words, self._on_card = upload.reserve(DECODE_FIELDS * self.max_rows)
        fields = words.reshape(DECODE_FIELDS, self.max_rows)
        fields[0, :size] = PADDING
        fields[1, :size] = 0
        fields[2, :size] = NEWEST
        fields[3, :size] = 0
        return fields

    def view(self, size: int) -> StepBuffers:
        """The first `size` rows; only after a first `describe`, whose place on the card all later ones share."""
        view = self._views.get(size)
        if view is None:
            fields = self._on_card.view(DECODE_FIELDS, self.max_rows)[:, :size]
            inputs = self._inputs
            view = self._views[size] = StepBuffers(
                described=fields[:3], rows=fields[0], lengths=fields[3], sampling_rows=fields[0], drawn=fields[3],
                sample_at=None,
                inputs=TokenInputs(inputs.token_ids[:size], inputs.positions[:size], inputs.slots[:size]),
                tables=self._tables[:size], choice=self._choice.first(size),
            )  # fmt: skip
        return view


def mixed_buffers(batch: Batch, n_columns: int, upload: Upload, device: torch.device) -> StepBuffers:
    """Writes the words of a step with prefill, and makes its buffers."""
    decodes, chunks, n_tokens = batch.decodes, batch.prefills, batch.n_tokens
    words, described = upload.reserve(3 * n_tokens)
    fields = words.reshape(3, n_tokens)
    lengths = [sequence.computed for sequence in decodes]
    at = len(decodes)
    fields[0, :at] = [row_of(sequence) for sequence in decodes]
    fields[1, :at] = np.array(lengths, np.int32) - 1
    fields[2, :at] = NEWEST
    ends: list[int] = []
    for chunk in chunks:
        end = at + chunk.length
        fields[0, at:end] = row_of(chunk.sequence)
        fields[1, at:end] = np.arange(chunk.start, chunk.start + chunk.length)
        fields[2, at:end] = chunk.sequence.tokens[chunk.start : chunk.start + chunk.length]
        lengths.append(chunk.start + chunk.length)
        at = end
        if chunk.samples:
            ends.append(end - 1)
    sampling = batch.sampling
    sequences = [*decodes, *(chunk.sequence for chunk in chunks)]
    rows = upload.put(np.fromiter((sequence.row for sequence in sequences), np.int32, len(sequences)))
    sampling_rows = upload.put(np.fromiter((sequence.row for sequence in sampling), np.int32, len(sampling)))
    return StepBuffers(
        described=described.view(3, n_tokens), rows=rows, lengths=upload.put(lengths), sampling_rows=sampling_rows,
        drawn=upload.put(np.fromiter((sequence.computed for sequence in sampling), np.int32, len(sampling))),
        sample_at=upload.put([*range(len(decodes)), *ends]),
        inputs=empty_inputs(n_tokens, device),
        tables=torch.empty((len(sequences), n_columns), dtype=torch.int32, device=device),
        choice=Choice.empty(len(sampling), device),
    )  # fmt: skip
