"""Makes each step of the engine take 20 ms more, as a larger model would, without the arithmetic.

With the flags of `FAILS` every step fails, as on a device that computes nothing any more: a revision whose answers are
errors, of a worker that is well by all that its probes ask.
"""

import os
import time
from pathlib import Path
from typing import Any, Final

STEP_S: Final = 0.02
FAILS: Final = "--max-batch\x0063\0"
"""In the command line of the server that started this engine."""


def slow_down(runner: Any) -> None:
    """The class's `launch` from now on."""
    at_once = runner.launch
    fails = FAILS in Path(f"/proc/{os.getppid()}/cmdline").read_text()

    def launch(self: Any, batch: Any) -> Any:
        time.sleep(STEP_S)
        if fails:
            raise RuntimeError("a step that was made to fail")
        return at_once(self, batch)

    runner.launch = launch
