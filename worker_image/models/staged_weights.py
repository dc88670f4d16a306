"""Weights on their way to a card: threads read and convert them into pinned buffers, from which they are copied while
the next piece is read. Nothing is compiled, and no second copy of the model is held in ordinary memory.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

import torch

from worker_image.checkpoint.base import Checkpoint
from worker_image.models.stored import as_tensor
from worker_image.models.tensors import expected_tensors, load_groups

BUFFER_BYTES: Final = 16 << 20
"""Large enough that a copy takes much longer than starting it; two for each thread are pinned."""
BUFFERS_A_LANE: Final = 2


class Lane(Protocol):
    """One thread's way to the device."""

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Both flat, of the same length; `target` may have another type. The content is there after `finish`."""

    def finish(self) -> torch.cuda.Event | None:
        """What to wait for on the device; None where everything is there already."""


class DirectLane:
    """To ordinary memory."""

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        target.copy_(source)

    def finish(self) -> None:
        return None


class PinnedLane:
    """To a CUDA device, through buffers of its own on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers = [torch.empty(BUFFER_BYTES, dtype=torch.uint8, pin_memory=True) for _ in range(BUFFERS_A_LANE)]
        self._free = [torch.cuda.Event() for _ in self._buffers]  # type: ignore[no-untyped-call]
        self._n_copies = 0

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        most = BUFFER_BYTES // source.element_size()
        for start in range(0, source.numel(), most):
            self._copy_piece(source[start : start + most], target[start : start + most])

    def _copy_piece(self, source: torch.Tensor, target: torch.Tensor) -> None:
        which = self._n_copies % BUFFERS_A_LANE
        self._n_copies += 1
        self._free[which].synchronize()
        staged = self._buffers[which].view(source.dtype)[: source.numel()]
        staged.copy_(source)
        with torch.cuda.stream(self._stream):
            if source.dtype == target.dtype:
                target.copy_(staged, non_blocking=True)
            else:
                # Converted on the device: on the way it would be done on the host, into memory that is not pinned.
                target.copy_(staged.to(target.device, non_blocking=True))
            self._free[which].record(self._stream)

    def finish(self) -> torch.cuda.Event:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event


class StagedWeights:
    """All of a checkpoint's tensors, being filled from the start in the order in which they will be taken."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, n_threads: int) -> None:
        """Allocates every tensor on the device. Raises torch's OutOfMemoryError where they do not fit."""
        self._checkpoint = checkpoint
        self._device = device
        self._lanes = threading.local()
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="weights")
        shapes = expected_tensors(checkpoint.config)
        # Every target before the first fill: memory that is freed later must not be given to a tensor being filled.
        targets = {
            names: torch.empty((sum(shapes[n][0] for n in names), *shapes[names[0]][1:]), dtype=dtype, device=device)
            for names in load_groups(checkpoint.config)
        }
        self._pending = {names: (target, self._fill(names, target, shapes)) for names, target in targets.items()}

    def take(self, *names: str) -> torch.Tensor:
        target, fills = self._pending.pop(names)
        for fill in fills:
            if (event := fill.result()) is not None:
                torch.cuda.current_stream(self._device).wait_event(event)
        if not self._pending:
            self._pool.shutdown()
        return target

    def close(self) -> None:
        """Gives up what has not begun; after the last `take` there is nothing."""
        self._pool.shutdown(cancel_futures=True)

    def _fill(
        self, names: tuple[str, ...], target: torch.Tensor, shapes: dict[str, tuple[int, ...]]
    ) -> list[Future[torch.cuda.Event | None]]:
        fills, row = [], 0
        for name in names:
            n_rows = shapes[name][0]
            fills.append(self._pool.submit(self._copy, name, target.narrow(0, row, n_rows)))
            row += n_rows
        return fills

    def _copy(self, name: str, target: torch.Tensor) -> torch.cuda.Event | None:
        lane = self._lane()
        lane.copy(as_tensor(self._checkpoint.read(name)).reshape(-1), target.view(-1))
        return lane.finish()

    def _lane(self) -> Lane:
        lane: Lane | None = getattr(self._lanes, "lane", None)
        if lane is None:
            lane = self._lanes.lane = PinnedLane(self._device) if self._device.type == "cuda" else DirectLane()
        return lane
