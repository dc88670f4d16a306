"""Whether a process stays as large as it was: pure arithmetic over what its metrics page said again and again.

A process grows while it warms up, and by what it caches; what leaks grows in the second half of a run as it did in the
first. So the median of the last quarter is held against the median of the second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

_LINE: Final = re.compile(r"(?P<name>\w*process_(?:resident_memory_bytes|open_fds))(?:\{[^}]*\})? (?P<value>\S+)")
_MEMORY, _HANDLES = "resident_memory_bytes", "open_fds"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one process: seconds since the run began, bytes, open file handles."""

    at_s: float
    memory_bytes: float
    handles: float


@dataclass(frozen=True, slots=True)
class Level:
    """Medians of the second and of the last quarter of a run."""

    memory_before_bytes: float
    memory_after_bytes: float
    handles_before: float
    handles_after: float

    @property
    def memory_growth(self) -> float:
        """Share by which it grew; below 0 where it shrank."""
        return self.memory_after_bytes / self.memory_before_bytes - 1

    @property
    def handles_growth(self) -> float:
        return self.handles_after - self.handles_before


def read(page: str) -> dict[str, tuple[float, float]]:
    """Prefix of the metrics → (bytes, handles), of each process that a metrics page speaks of."""
    found: dict[str, dict[str, float]] = {}
    for match in map(_LINE.fullmatch, page.splitlines()):
        if match:
            prefix, _, what = match["name"].partition("process_")
            found.setdefault(prefix.strip("_"), {})[what] = float(match["value"])
    return {
        prefix: (values[_MEMORY], values[_HANDLES])
        for prefix, values in found.items()
        if {_MEMORY, _HANDLES} <= set(values)
    }


def level(samples: Sequence[Sample]) -> Level | None:
    """None where one of the two quarters was not seen."""
    if not samples:
        return None
    ends_s = max(one.at_s for one in samples)
    second = [one for one in samples if ends_s / 4 <= one.at_s < ends_s / 2]
    last = [one for one in samples if one.at_s >= ends_s * 3 / 4]
    if not second or not last:
        return None
    return Level(
        _median(one.memory_bytes for one in second),
        _median(one.memory_bytes for one in last),
        _median(one.handles for one in second),
        _median(one.handles for one in last),
    )


def _median(values: Iterable[float]) -> float:
    return float(median(values))
