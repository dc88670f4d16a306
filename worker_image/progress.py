"""Loading progress: a bar where a person looks on, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

from worker_image.engine.messages import Progress

log = logging.getLogger(__name__)
BAR_CHARS: Final = 30
MIN_INTERVAL_S: Final = 0.5


def show_progress() -> Callable[[Progress], None]:
    return ProgressBar(sys.stderr) if sys.stderr.isatty() else ProgressLines()


class ProgressLines:
    """The first step of each stage, the last, and no more than two a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_at = float("-inf")

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        if progress.done == progress.total or now - self._last_at >= MIN_INTERVAL_S:
            self._last_at = now
            log.info("loading %s: %d of %d", progress.stage, progress.done, progress.total)


class ProgressBar:
    """One line for each stage, written over until it is full."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal

    def __call__(self, progress: Progress) -> None:
        share = progress.done / progress.total if progress.total else 1.0
        bar = ("━" * round(share * BAR_CHARS)).ljust(BAR_CHARS)
        end = "\n" if progress.done == progress.total else ""
        self._terminal.write(f"\r\x1b[Kloading {progress.stage:<10} {bar} {progress.done}/{progress.total}{end}")
        self._terminal.flush()
