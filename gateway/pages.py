"""The metrics pages of several processes as the page of one. Pure; knows the text format, and few metrics by name.

Counters and histograms are added up, and those of a process that died stay in the sum, so that no counter ever falls.
Of a gauge that each process sees alike the largest counts; those that speak of a process's own are added up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

_OWN: Final = (
    "foretide_gateway_in_flight", "foretide_gateway_open_streams", "foretide_gateway_waiting",
    "foretide_gateway_queued", "foretide_gateway_connections", "foretide_gateway_buffered_bytes",
    "foretide_gateway_journal_bytes", "foretide_gateway_access_log_dropped_lines", "process_virtual_memory_bytes",
    "process_resident_memory_bytes", "process_open_fds",
)  # fmt: skip
"""Gauges that are a process's own."""
_ADDED_KINDS: Final = frozenset({"counter", "histogram", "summary"})
Samples = dict[str, dict[str, float]]
"""Family → sample with labels, as written → value."""


class Pages:
    """The newest page of each process, and what the dead have left."""

    def __init__(self) -> None:
        self._heads: dict[str, list[str]] = {}
        self._kinds: dict[str, str] = {}
        self._pages: dict[int, Samples] = {}
        self._left: Samples = {}

    def put(self, process: int, page: str) -> None:
        self._pages[process] = self._read(page)

    def bury(self, process: int) -> None:
        """The process has died: what it counted stays."""
        for family, samples in self._pages.pop(process, {}).items():
            if self._kinds.get(family) in _ADDED_KINDS:
                _add(self._left.setdefault(family, {}), samples)

    def joined(self) -> str:
        lines: list[str] = []
        for family, head in self._heads.items():
            pages = [page[family] for page in (*self._pages.values(), self._left) if family in page]
            if not pages:
                continue
            total: dict[str, float] = {}
            for samples in pages:
                if self._kinds.get(family) in _ADDED_KINDS or family in _OWN:
                    _add(total, samples)
                else:
                    _largest(total, samples)
            lines += head
            lines += [f"{name} {value!r}" for name, value in total.items()]
        return "\n".join(lines) + "\n"

    def _read(self, page: str) -> Samples:
        found: Samples = {}
        family = ""
        for line in page.splitlines():
            if line.startswith("# "):
                _, what, family, *rest = line.split(" ", 3)
                if what == "HELP":
                    self._heads[family] = [line]
                elif what == "TYPE":
                    self._kinds[family] = rest[0]
                    self._heads[family] = [*self._heads.get(family, ())[:1], line]
            elif line:
                name, _, value = line.rpartition(" ")
                found.setdefault(family, {})[name] = float(value)
        return found


def _add(total: dict[str, float], samples: Mapping[str, float]) -> None:
    for name, value in samples.items():
        total[name] = total.get(name, 0.0) + value


def _largest(total: dict[str, float], samples: Mapping[str, float]) -> None:
    for name, value in samples.items():
        total[name] = max(total.get(name, value), value)


def joined_demand(answers: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Open and waiting requests added up; idle as long as the one that was busy last."""
    total: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for key, one in answer.items():
            known = total.setdefault(key, {"open": 0, "waiting": 0, "idle_s": one["idle_s"]})
            known["open"] += one["open"]
            known["waiting"] += one["waiting"]
            known["idle_s"] = min(known["idle_s"], one["idle_s"])
    return total
