"""What a step sends to the device: small arrays laid end to end in pinned memory, one copy, no waiting.

The host has several buffers, and none is written again before its copy is done. On the device there is one: the
stream's order keeps steps apart, and a graph finds its inputs where they always are.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

ALIGN: Final = 4
"""32-bit words: kernels are compiled for pointers on 16 bytes."""
Words = npt.NDArray[np.int32]


class Upload:
    """`begin`, then `put` each array, then `send`."""

    def __init__(self, n_words: int, device: torch.device, n_buffers: int) -> None:
        pinned = device.type == "cuda"
        self._host = [torch.zeros(n_words, dtype=torch.int32, pin_memory=pinned) for _ in range(n_buffers)]
        self._arrays: list[Words] = [buffer.numpy() for buffer in self._host]
        self._device = torch.zeros(n_words, dtype=torch.int32, device=device)
        self._copied = [_event() for _ in range(n_buffers)] if pinned else []
        self._turn = 0
        self._at = 0

    def begin(self) -> None:
        """The next step's arrays. Waits for the copy that used this buffer last, which is long done."""
        self._turn = (self._turn + 1) % len(self._host)
        self._at = 0
        if self._copied:
            self._copied[self._turn].synchronize()

    def reserve(self, n_words: int) -> tuple[Words, torch.Tensor]:
        """(n_words,) int32 to write to now, and where it will be on the device."""
        at = self._at
        self._at = at + -(-n_words // ALIGN) * ALIGN
        assert self._at <= len(self._arrays[0]), f"a step sends at most {len(self._arrays[0])} words"
        return self._arrays[self._turn][at : at + n_words], self._device[at : at + n_words]

    def put(self, values: Words | list[int]) -> torch.Tensor:
        """The same array on the device, there once `send` was called."""
        words, on_device = self.reserve(len(values))
        words[:] = values
        return on_device

    def send(self) -> None:
        """Enqueues the copy on the current stream."""
        self._device[: self._at].copy_(self._host[self._turn][: self._at], non_blocking=True)
        if self._copied:
            self._copied[self._turn].record()


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]
