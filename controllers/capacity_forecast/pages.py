"""`/decisions/{namespace}/{service}?since=…&limit=…` on the operator's admin port: the recorded decisions, read-only.

JSON lines, as `foretide replay` reads them. Only the leader decides, so only the leader knows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from controllers.capacity_forecast.decisions import DecisionLog
from controllers.history.interface import ServiceId
from controllers.runtime.interface import Page

MOST: Final = 2_000


def decisions_page(log: DecisionLog) -> Page:
    async def answer(parts: Mapping[str, str], query: Mapping[str, str]) -> str:
        service = ServiceId(parts["namespace"], parts["service"])
        since_s = _number(query, "since", 0.0, 1e12)
        limit = int(_number(query, "limit", 1.0 * MOST, MOST))
        lines = await log.read(service, since_s, limit)
        return "".join(f"{line}\n" for line in lines)

    return Page("/decisions/{namespace}/{service}", "application/x-ndjson", answer)


def _number(query: Mapping[str, str], name: str, default: float, most: float) -> float:
    """Raises ValueError that says what is allowed."""
    text = query.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= most:
        raise ValueError(f"{name} is '{text[:50]}'; a number from 0 to {most:g} is allowed.")
    return value
