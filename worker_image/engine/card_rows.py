"""What the card keeps of each of the scheduler's rows: block table, newest token, sampling parameters.

Changed only by what a batch says changed. Between steps the host sends nothing of it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Rows
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from worker_image.engine.batch import TableUpdate
from worker_image.engine.sequence import Sequence
from worker_image.engine.upload import Upload
from worker_image.kernels.step_inputs import PARAMETER_WORDS, RowTables, scatter

UPDATE_WORDS: Final = 1 << 16
"""Block numbers in one upload; a step that joins more of them sends several."""


class CardRows:
    """`n_rows` rows of `n_columns` blocks."""

    def __init__(self, n_rows: int, n_columns: int, device: torch.device) -> None:
        def zeros(*size: int) -> torch.Tensor:
            return torch.zeros(size, dtype=torch.int32, device=device)

        self.tables = RowTables(zeros(n_rows, n_columns), zeros(n_rows), zeros(n_rows, PARAMETER_WORDS))
        self._n_columns = n_columns
        self._updates = Upload(2 * UPDATE_WORDS + 8, device, n_buffers=2)
        self._joins = Upload(2 * n_rows * PARAMETER_WORDS + 8, device, n_buffers=2)

    def apply(self, updates: Rows[TableUpdate], joined: Rows[Sequence]) -> None:
        """Enqueues the changes on the current stream."""
        if updates:
            self._update(updates)
        if joined:
            self._join(joined)

    def _update(self, updates: Rows[TableUpdate]) -> None:
        first = [update.row * self._n_columns + update.first for update in updates]
        counts = np.fromiter((len(update.blocks) for update in updates), np.int64, len(updates))
        blocks = np.fromiter(chain.from_iterable(update.blocks for update in updates), np.int32, int(counts.sum()))
        # Each update's places count up from its first one.
        ends = counts.cumsum()
        places = np.arange(len(blocks)) - np.repeat(ends - counts - np.array(first), counts)
        if len({update.row for update in updates}) < len(updates):
            places, blocks = last_of_each(places, blocks)
        for start in range(0, len(blocks), UPDATE_WORDS):
            part = slice(start, start + UPDATE_WORDS)
            self._send(self._updates, places[part].astype(np.int32), blocks[part], self.tables.blocks)

    def _join(self, joined: Rows[Sequence]) -> None:
        rows = np.fromiter((sequence.row for sequence in joined), np.int64, len(joined))
        places = rows[:, None] * PARAMETER_WORDS + np.arange(PARAMETER_WORDS)
        words = parameter_words(joined)
        self._send(self._joins, places.ravel().astype(np.int32), words.ravel(), self.tables.parameters)

    def _send(
        self, upload: Upload, places: npt.NDArray[np.int32], values: npt.NDArray[np.int32], target: torch.Tensor
    ) -> None:
        upload.begin()
        on_card = upload.put(places), upload.put(values)
        upload.send()
        scatter(*on_card, target)


def last_of_each(
    places: npt.NDArray[np.int64], values: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Each place once, with the value that was named for it last: a row may have changed hands within a step."""
    unique, from_end = np.unique(places[::-1], return_index=True)
    return unique, values[::-1][from_end]


def parameter_words(sequences: Iterable[Sequence]) -> npt.NDArray[np.int32]:
    """(sequences, PARAMETER_WORDS) int32, as `kernels.step_inputs` lays them out."""
    sampled = [(s.sampling, s.seed) for s in sequences]
    words = np.zeros((len(sampled), PARAMETER_WORDS), np.int32)
    floats = np.array([(p.temperature, p.top_p, p.min_p) for p, _ in sampled], np.float32)
    words[:, :3] = floats.view(np.int32)
    words[:, 3] = [p.top_k for p, _ in sampled]
    words[:, 4:6] = np.array([seed for _, seed in sampled], np.uint64).view(np.int32).reshape(-1, 2)
    return words
