"""Makes each step of the engine take 20 ms more, as a larger model would, without the arithmetic.

Two flags make bad revisions of it, of a worker that is well by all that its probes ask. With that of `FAILS` every step
fails, as on a device that computes nothing any more. With that of `FAILS_PARTLY` three of ten requests cannot be
computed, as with a kernel that is wrong for some shapes: their streams break, and the others are answered.
"""

import os
import time
from pathlib import Path
from typing import Any, Final

STEP_S: Final = 0.02
FAILS: Final = "--max-batch\x0063\0"
"""In the command line of the server that started this engine."""
FAILS_PARTLY: Final = "--max-batch\x0062\0"
BROKEN_OF_TEN: Final = frozenset({3, 6, 9})
"""Last digits of the numbers that the engine gives to its requests: spread, so that few fail in a row."""


def slow_down(runner: Any) -> None:
    """The class's `launch` from now on."""
    at_once = runner.launch
    flags = Path(f"/proc/{os.getppid()}/cmdline").read_text()
    fails, fails_partly = FAILS in flags, FAILS_PARTLY in flags

    def launch(self: Any, batch: Any) -> Any:
        time.sleep(STEP_S)
        if fails or (fails_partly and _holds_a_broken_one(batch)):
            raise RuntimeError("a step that was made to fail")
        return at_once(self, batch)

    runner.launch = launch


def _holds_a_broken_one(batch: Any) -> bool:
    sequences = [*batch.decodes, *(chunk.sequence for chunk in batch.prefills)]
    return any(sequence.request_id % 10 in BROKEN_OF_TEN for sequence in sequences)
