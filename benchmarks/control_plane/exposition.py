"""Prometheus text read back: samples by name. Just enough for counters and gauges of our own processes."""

from __future__ import annotations

import re
from typing import Final

Samples = dict[str, list[tuple[dict[str, str], float]]]
_LINE: Final = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([^ ]+)(?: [0-9]+)?$")
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def parse(text: str, only: str = "") -> Samples:
    """Samples by metric name; `only` leaves out all lines that do not begin so."""
    found: Samples = {}
    for line in text.splitlines():
        if line.startswith("#") or not line.startswith(only):
            continue
        match = _LINE.match(line)
        if match is not None:
            labels = dict(_LABEL.findall(match[2] or ""))
            found.setdefault(match[1], []).append((labels, float(match[3])))
    return found


def total(samples: Samples, name: str, **labels: str) -> float:
    """Sum of the samples that carry these labels; 0 when there is none."""
    wanted = labels.items()
    return sum(value for has, value in samples.get(name, ()) if wanted <= has.items())
