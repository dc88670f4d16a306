"""Decode steps as CUDA graphs: one for each batch size in a list, captured between steps, so that no start waits.

A graph replays a whole step with no Python and no launch gaps; what changes from step to step lies in static buffers.
Until a size has its graph, steps of that size run as they are. Decides nothing about what a step is.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

import torch

log = logging.getLogger(__name__)

FINE_UP_TO: Final = 256
FINE: Final = 8
COARSE: Final = 32
"""Rows between neighbouring sizes: padding costs a step at most this many rows."""


class Replayable(Protocol):
    def replay(self) -> None:
        """Enqueues the step on the current stream."""


def bucket_sizes(max_rows: int) -> tuple[int, ...]:
    """1, 2, 4, every 8th to 256, every 32nd beyond; the last holds all rows."""
    fine = range(FINE, min(max_rows, FINE_UP_TO) + 1, FINE)
    coarse = range(FINE_UP_TO + COARSE, max_rows + 1, COARSE)
    return tuple(sorted({size for size in (1, 2, 4, *fine, *coarse) if size < max_rows} | {max_rows}))


Capture: TypeAlias = Callable[[Callable[[], torch.Tensor]], Replayable]
"""Runs the work, and gives back something that enqueues it again, with its result in the same memory."""


class DecodeGraphs:
    """`step` runs the decode of a given size on the static buffers."""

    def __init__(self, sizes: tuple[int, ...], step: Callable[[int], torch.Tensor], capture: Capture | None) -> None:
        """capture: None, and there are never any graphs."""
        self._sizes = sizes
        self._step = step
        self._capture = capture
        self._graphs: dict[int, Replayable] = {}
        self._missed: int | None = None

    def size_for(self, n_rows: int) -> int:
        """The least size that holds them."""
        return self._sizes[bisect_left(self._sizes, n_rows)]

    def replay(self, size: int) -> bool:
        """Enqueues the step of that size; False (and nothing done) where its graph is not there yet."""
        graph = self._graphs.get(size)
        if graph is None:
            self._missed = size
            return False
        graph.replay()
        return True

    @property
    def complete(self) -> bool:
        return self._capture is None or len(self._graphs) == len(self._sizes)

    def capture_next(self) -> int | None:
        """Makes one more graph: of the size that was missed last, else of the largest without one. Returns its size.

        Whatever the static buffers hold is run: it must touch nothing. Where the card has no memory for another graph,
        there will be no more: steps of other sizes run as they are.
        """
        left = [size for size in self._sizes if size not in self._graphs]
        missed, self._missed = self._missed, None
        if self._capture is None or not left:
            return None
        size = missed if missed in left else left[-1]
        try:
            self._graphs[size] = self._capture(partial(self._step, size))
        except torch.OutOfMemoryError:
            log.warning("no memory for a graph of %d rows; %d sizes have one", size, len(self._graphs))
            self._capture = None
            return None
        return size


class GraphMaker:
    """Captures on a stream of its own into one memory pool, beside steps that run on the main stream."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], torch.Tensor]) -> torch.cuda.CUDAGraph:
        """Runs `work` once, so that nothing is loaded or compiled while capturing, then captures it.

        `torch.cuda.graph` would wait for the device and collect garbage first, which a running engine cannot afford.
        """
        main = torch.cuda.current_stream()
        self._stream.wait_stream(main)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            work()
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        main.wait_stream(self._stream)
        return graph


@dataclass(frozen=True)
class _Address:
    """Memory that somebody else keeps, in the terms of the CUDA array interface (version 3)."""

    __cuda_array_interface__: dict[str, Any]


def unowned(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the same memory that does not keep it.

    For a result inside a graph: graphs of one pool share their memory only where nobody holds it, and a replay writes
    to it again. tensor: two bytes an element on a card; what is on a CPU is returned as it is.
    """
    if not tensor.is_cuda:
        return tensor
    words = {"shape": tuple(tensor.shape), "typestr": "<i2", "data": (tensor.data_ptr(), False), "version": 3}
    return torch.as_tensor(_Address(words), device=tensor.device).view(tensor.dtype)
