"""Where a request's time went in this worker, told to a gateway that traces it. Knows no engine and no HTTP.

The worker has no way out of its network and exports nothing: the gateway makes spans of what it is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from worker_image.server.metrics import Ended

_SAMPLED: Final = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f][13579bdf]")


def is_traced(headers: Mapping[str, str]) -> bool:
    """The request's `traceparent` says that it is sampled."""
    return trace_id_of(headers) is not None


def trace_id_of(headers: Mapping[str, str]) -> str | None:
    """Of a request whose `traceparent` says that it is sampled."""
    match = _SAMPLED.fullmatch(headers.get("traceparent", ""))
    return match and match[1]


def server_timing(ended: Sequence[Ended], steps: int) -> str:
    """A `Server-Timing` value: queue, prefill (its prompt tokens as `desc`), decode (the engine's steps as `desc`).

    Of several choices each phase counts as long as it took the slowest; a phase that was not reached is left out.
    """
    prompt_tokens = max((one.prompt_tokens for one in ended), default=0)
    phases = (
        ("queue", [one.queue_s for one in ended], None),
        ("prefill", [one.prefill_s for one in ended], prompt_tokens),
        ("decode", [one.decode_s for one in ended], steps),
    )
    return ", ".join(_entry(name, times_s, count) for name, times_s, count in phases if _known(times_s))


def _entry(name: str, times_s: Sequence[float | None], count: int | None) -> str:
    entry = f"{name};dur={max(_known(times_s)) * 1e3:.3f}"
    return entry if count is None else f"{entry};desc={count}"


def _known(times_s: Sequence[float | None]) -> list[float]:
    return [max(one, 0.0) for one in times_s if one is not None]
