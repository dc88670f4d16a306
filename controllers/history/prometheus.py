"""History from a Prometheus server that scrapes the gateways: range queries in chunks, off the event loop.

Counter resets are Prometheus' business (`increase`). A step for which it has no sample is a gap.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import numpy as np
import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from controllers.history.counters import COUNTERS
from controllers.history.interface import Array, Counts, HistoryUnavailable, ServiceId

CHUNK_STEPS: Final = 1_000
"""Of one query: a server allows 11,000 points, and answers many small queries sooner than one that scans weeks."""
TIMEOUT_S: Final = 20
"""Without a word from the server."""
WAITED_S: Final = 60.0
"""For one answer, with its retry and the wait for a thread: then the server is taken to be away."""
AT_ONCE: Final = 4
"""Queries; those that nobody waits for any more count until they end."""

Sample = tuple[float, float]
"""Time and value."""


class RangeQuery(Protocol):
    """The part of `PrometheusConnect` that is used."""

    def custom_query_range(self, query: str, start_time: datetime, end_time: datetime, step: str) -> Any: ...


class PrometheusHistory:
    """A `HistorySource`. `client` is made from `url` when left out."""

    name = "Prometheus"

    def __init__(self, url: str, client: RangeQuery | None = None) -> None:
        self._url = url
        # When to ask again is the board's business: a server may name hours.
        again = Retry(total=1, respect_retry_after_header=False)
        self._client = client or PrometheusConnect(url=url, retry=again, timeout=TIMEOUT_S)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="prometheus")

    async def read(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        columns = [await self._counted(name, service, start_s, end_s, step_s) for name in COUNTERS]
        return Counts(start_s, step_s, *columns)

    async def arrivals(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Array:
        return await self._counted(COUNTERS[0], service, start_s, end_s, step_s)

    async def _counted(self, name: str, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Array:
        query = increase_of(name, service, step_s)
        out = np.full(max(0, round((end_s - start_s) / step_s)), np.nan)
        for first, last in chunks(len(out)):
            # The increase of a step is known where the step ends.
            said = await self._waited(query, start_s + (first + 1) * step_s, start_s + last * step_s, step_s)
            for at_s, value in said:
                step = round((at_s - start_s) / step_s) - 1
                if 0 <= step < len(out) and 0 <= value < float("inf"):
                    out[step] = value
        return out

    def close(self) -> None:
        """Waits for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _waited(self, query: str, first_s: float, last_s: float, step_s: float) -> list[Sample]:
        asked = asyncio.get_running_loop().run_in_executor(self._threads, self._ask, query, first_s, last_s, step_s)
        try:
            async with asyncio.timeout(WAITED_S):
                return await asked
        except TimeoutError:
            raise self._unavailable(f"does not answer within {WAITED_S:g} s") from None

    def _ask(self, query: str, first_s: float, last_s: float, step_s: float) -> list[Sample]:
        first, last = datetime.fromtimestamp(first_s, UTC), datetime.fromtimestamp(last_s, UTC)
        try:
            return list(samples_in(self._client.custom_query_range(query, first, last, f"{step_s:g}")))
        except requests.RequestException as error:
            raise self._unavailable(f"cannot be reached ({type(error).__name__})") from error
        except (PrometheusApiClientException, ValueError, LookupError, TypeError, RecursionError) as error:
            raise self._unavailable(f"does not answer the query `{query}`: {str(error)[:200]}") from error

    def _unavailable(self, what: str) -> HistoryUnavailable:
        return HistoryUnavailable(f"Prometheus at {self._url} {what}. Check history.prometheusUrl and the server.")


def increase_of(metric: str, service: ServiceId, step_s: float) -> str:
    """PromQL: how much the counter of a service grew in the step, over all gateways."""
    labels = f'namespace="{service.namespace}",service="{service.name}"'
    return f"sum(increase({metric}{{{labels}}}[{step_s:g}s]))"


def chunks(steps: int) -> Iterator[tuple[int, int]]:
    """[first, last) of each query."""
    for first in range(0, steps, CHUNK_STEPS):
        yield first, min(first + CHUNK_STEPS, steps)


def samples_in(answer: Any) -> Iterator[Sample]:
    """Of a matrix with at most one series. What is not one is left out: a gap, not a mistake of ours."""
    for series in answer if isinstance(answer, list) else ():
        values = series.get("values") if isinstance(series, dict) else None
        for sample in values if isinstance(values, list) else ():
            try:
                at_s, value = float(sample[0]), float(sample[1])
            except (TypeError, ValueError, LookupError, OverflowError):
                continue
            if math.isfinite(at_s):
                yield at_s, value
