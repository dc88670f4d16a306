"""What a worker's metrics page says about its load. Pure: text in, numbers out; what is not understood is absent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from crds import contract

_GAUGES: Final = (contract.METRIC_RUNNING, contract.METRIC_WAITING, contract.METRIC_KV_USAGE)
_COUNTERS: Final = (
    contract.METRIC_REQUESTS_ENDED,
    contract.METRIC_PROMPT_TOKENS,
    contract.METRIC_GENERATION_TOKENS,
)
_MOST: Final = 1e15


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """Requests running and waiting, the share of the KV cache in use, and three counters since the worker's start."""

    running: int = 0
    waiting: int = 0
    kv_use: float = 0.0
    ended: float = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0

    @property
    def held(self) -> int:
        return self.running + self.waiting


@dataclass(frozen=True, slots=True)
class Rates:
    """What a worker did in each second between two reports."""

    requests_per_s: float = 0.0
    input_tokens_per_s: float = 0.0
    output_tokens_per_s: float = 0.0


def report_in(page: str) -> WorkerReport | None:
    """The sum over all models of the page; None when it has neither running nor waiting requests."""
    sums: dict[str, float] = {}
    for line in page.splitlines():
        name = line.split("{", 1)[0].split(" ", 1)[0]
        if name in _GAUGES or name in _COUNTERS:
            value = _value(line)
            if value is not None:
                sums[name] = sums.get(name, 0.0) + value
    running, waiting, kv_use = (sums.get(name) for name in _GAUGES)
    if running is None and waiting is None:
        return None
    ended, input_tokens, output_tokens = (sums.get(name, 0.0) for name in _COUNTERS)
    kv = min(kv_use or 0.0, 1.0)
    return WorkerReport(round(running or 0), round(waiting or 0), kv, ended, input_tokens, output_tokens)


def rates_between(before: WorkerReport, after: WorkerReport, seconds: float) -> Rates:
    """Of counters that fell, since the restart that made them fall."""
    if seconds <= 0:
        return Rates()
    pairs = (
        (before.ended, after.ended),
        (before.input_tokens, after.input_tokens),
        (before.output_tokens, after.output_tokens),
    )
    requests, inputs, outputs = ((new - old if new >= old else new) / seconds for old, new in pairs)
    return Rates(requests, inputs, outputs)


def _value(line: str) -> float | None:
    after = line.rsplit("}", 1)[-1] if "}" in line else line.partition(" ")[2]
    words = after.split()
    try:
        value = float(words[0]) if words else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < _MOST else None
