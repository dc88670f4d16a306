"""What every checkpoint format looks like to the rest of the worker: a config, tensors under Hugging Face's names.

No torch here or anywhere in this package: the server process never imports it, and the engine decodes files while
its interpreter is still importing it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from worker_image.errors import CheckpointError
from worker_image.models.config import ModelConfig

Shape: TypeAlias = tuple[int, ...]

PREFETCHED_BYTES: Final = 2 << 30
"""A small model whole, and more of a large one than any reader falls behind."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's elements. numpy has no bfloat16: those are the uint16 of their bits, and `bfloat16` says so."""

    values: npt.NDArray[Any]
    """float32, float16 or uint16, C order."""
    bfloat16: bool = False
    in_file: bool = False
    """A view of the mapped file, to be copied by who keeps it."""


class Checkpoint(Protocol):
    """Opened and checked: the config can be served, and every tensor it needs is there in the right shape."""

    @property
    def path(self) -> Path: ...

    @property
    def config(self) -> ModelConfig: ...

    def read(self, name: str) -> StoredTensor:
        """The tensor of that Hugging Face name. Raises CheckpointError where its bytes cannot be read."""

    def prefetch(self, n_threads: int) -> None:
        """Begins to bring the tensors into memory in the background. Optional; a second call does nothing."""

    def close(self) -> None:
        """Ends the background work. Tensors already read stay valid."""


class Prefetcher:
    """Runs `read` for the named tensors in background threads, in their order; `take` hands each result out once.

    No more than `most_bytes` of results wait to be taken, so a model larger than memory can pass through.
    """

    def __init__(
        self,
        read: Callable[[str], StoredTensor],
        sizes: Mapping[str, int],
        n_threads: int,
        most_bytes: int = PREFETCHED_BYTES,
    ) -> None:
        """sizes: name → bytes of its result."""
        self._read = read
        self._sizes = sizes
        self._most_bytes = most_bytes
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="decode")
        self._lock = threading.Lock()
        self._left = deque(sizes)
        self._taken: set[str] = set()
        self._ahead: dict[str, Future[StoredTensor]] = {}
        self._ahead_bytes = 0
        with self._lock:
            self._submit()

    def take(self, name: str) -> StoredTensor:
        """Waits for the tensor; one that is not on its way (any more) is read by the caller's thread."""
        with self._lock:
            self._taken.add(name)
            future = self._ahead.get(name)
        try:
            return self._read(name) if future is None else future.result()
        finally:
            with self._lock:
                if self._ahead.pop(name, None) is not None:
                    self._ahead_bytes -= self._sizes[name]
                self._submit()

    def close(self) -> None:
        with self._lock:
            self._left.clear()
        self._pool.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        """Starts what there is room for; at least one, however large. The lock is held."""
        while self._left and (not self._ahead or self._ahead_bytes + self._sizes[self._left[0]] <= self._most_bytes):
            name = self._left.popleft()
            if name not in self._taken:
                self._ahead[name] = self._pool.submit(self._read, name)
                self._ahead_bytes += self._sizes[name]


def check_shapes(
    place: Callable[[str], str], expected: Mapping[str, Shape], found: Mapping[str, Shape], architecture: str
) -> None:
    """Both by the file's own names; `place` names the file a tensor is (or should be) in.

    Raises CheckpointError for a tensor that is missing, of another shape, or that nothing would read.
    """
    for name, shape in expected.items():
        if name not in found:
            raise CheckpointError(f"{place(name)}: tensor '{name}' is missing; it must be {list(shape)}.")
    for name, shape in found.items():
        wanted = expected.get(name)
        if wanted is None:
            raise CheckpointError(f"{place(name)}: tensor '{name}' is none that architecture '{architecture}' has.")
        if shape != wanted:
            raise CheckpointError(f"{place(name)}: tensor '{name}' is {list(shape)}; it must be {list(wanted)}.")


def unpermuted(values: npt.NDArray[np.float32], head_dim: int) -> npt.NDArray[np.float32]:
    """Rows of rotary pairs from neighbours (2i, 2i + 1) to halves (i, i + head_dim/2). values: (rows, in)."""
    rows, width = values.shape
    return values.reshape(rows // head_dim, head_dim // 2, 2, width).swapaxes(1, 2).reshape(rows, width)
