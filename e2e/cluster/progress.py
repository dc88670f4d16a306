"""One line per step with the time it took, so that a long first run is never silent.

On a terminal the running step's time is redrawn every second; elsewhere a line is written when the step ends.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO


@dataclass
class Progress:
    out: TextIO = field(default_factory=lambda: sys.stderr)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        ended = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(name, started, ended), daemon=True)
        if self.out.isatty():
            ticker.start()
        else:
            self._write(f"{name} …\n")
        outcome = "failed"
        try:
            yield
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            ended.set()
            if ticker.is_alive():
                ticker.join()
            self._write(f"{self._return()}{name}: {outcome} ({time.monotonic() - started:.1f} s)\n")

    def say(self, line: str) -> None:
        self._write(f"{line}\n")

    def _tick(self, name: str, started: float, ended: threading.Event) -> None:
        while not ended.wait(1.0):
            self._write(f"\r{name} … {time.monotonic() - started:.0f} s")

    def _return(self) -> str:
        return "\r" if self.out.isatty() else ""

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()
