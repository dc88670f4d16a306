"""The seam between scheduling and computing: what a device must do with a step. No implementation lives here.

The contract, by which the scheduler may plan the next step before it knows the last one's tokens:

1. Steps run in the order of `launch`, each to its end before the next begins (one stream). So a block that was given
   back by an earlier step may be written by a later one.
2. Within a step: `saves`, `restores`, `copies`, then in every layer all keys and values of the step are written before
   any token attends. So a chunk may read blocks that another chunk of the same batch fills (a shared prefix).
3. Everything is read from `batch` and its sequences inside `launch`. Afterwards the scheduler changes them.
4. The runner keeps by `row`: the block table (`Batch.tables`), the newest token (which the next step of that row starts
   from), its index, and the sampling parameters (`Batch.joined`). A row's first step is always a chunk, whose tokens
   are known on the host; a row that is not in a batch keeps what it has; a row that joins anew starts from nothing.
5. A sequence with `needs_history` is launched only when all its tokens are on the host (`n_in_flight` was 0): penalties
   count `tokens`, and `matcher` stands after the last of them and gives the mask. All others need nothing from `tokens`
   but the chunk's slice. While `sampling.min_tokens` are not reached, stop ids are excluded; the length is
   `computed + 1 - n_prompt` at launch, with this step's token.
6. The noise of a token is `noise.py`'s for (sequence.seed, computed): its index is `computed` at launch.
7. A step may fail with any exception. It is undone, and those that were in it compute again, each alone; only an
   AssertionError ends the engine.
"""

from __future__ import annotations

from typing import Protocol

from worker_image.engine.batch import Batch, Sampled


class InFlight(Protocol):
    """A launched step."""

    def wait(self) -> Sampled:
        """Blocks until the step has run. Raises RuntimeError (torch's out of memory is one) where it failed."""


class Runner(Protocol):
    """Computes steps. One thread calls it."""

    @property
    def depth(self) -> int:
        """Steps that may stay in flight while the next is scheduled: 0 where `launch` computes, 1 where it starts."""

    def launch(self, batch: Batch) -> InFlight:
        """Starts a step that is not empty. Raises RuntimeError where it could not; nothing of it is in flight then."""

    def prepare(self) -> bool:
        """Uses a moment in which there is nothing to run, some tens of milliseconds; False where all is done."""

    def recover(self) -> None:
        """After a failed step, with nothing in flight: forgets all rows and gives unused memory back to the device.

        Raises RuntimeError where the device can compute no more; the engine's process ends then.
        """
