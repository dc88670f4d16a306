"""The load of a service out of Prometheus: what the gateways counted, as requests that can be replayed.

The days before the range are read as the operator reads them, for its forecast.

Counters know how many requests came in a minute and how many tokens they had, not which; so the requests of a minute
come at random in it and share its tokens. Minutes without a sample have no requests and are counted as gaps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import numpy as np
import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util import Retry

from cli.errors import CliError
from cli.http import cause, checked
from crds import contract
from forecasting.counts import Counts
from forecasting.series import Array
from forecasting.simulator.requests import Requests
from forecasting.standing import Schedule

STEP_S: Final = 60
PAST: Final = Schedule()
CHUNK_STEPS: Final = 1_000
ANSWERS_WITHIN_S: Final = 120
"""One range: Prometheus itself gives up then."""
PASSING: Final = (429, 502, 503, 504)
COUNTERS: Final = (
    contract.METRIC_GATEWAY_ARRIVALS,
    contract.METRIC_GATEWAY_COMPLETED,
    contract.METRIC_GATEWAY_INPUT_TOKENS,
    contract.METRIC_GATEWAY_OUTPUT_TOKENS,
)


class RangeQuery(Protocol):
    """The part of `PrometheusConnect` that is used."""

    def custom_query_range(self, query: str, start_time: datetime, end_time: datetime, step: str) -> Any:
        """A matrix."""


@dataclass(frozen=True, slots=True)
class Found:
    """Requests of the range, how many of its minutes had no sample, and what was counted before it."""

    requests: Requests
    gaps: int
    past: Counts


def client_of(url: str) -> RangeQuery:
    """A client; asks nothing yet. Raises CliError where that is no URL."""
    checked("--prometheus", url, "http://prometheus:9090")
    again = Retry(2, read=0, backoff_factor=1, status_forcelist=PASSING, respect_retry_after_header=False)
    client: RangeQuery = PrometheusConnect(url=url, retry=again, timeout=ANSWERS_WITHIN_S)
    return client


def read_range(client: RangeQuery, url: str, namespace: str, name: str, end_s: float, hours: float) -> Found:
    """The load of the `hours` before `end_s` (Unix time).

    Raises:
        CliError: Prometheus does not answer, or has nothing of this service.
    """
    steps = round(hours * 3600 / STEP_S)
    start_s = end_s - steps * STEP_S
    columns = [_column(client, url, metric, namespace, name, start_s, steps, STEP_S) for metric in COUNTERS]
    arrivals = columns[0]
    if not np.nansum(arrivals):
        raise CliError(
            f"Prometheus at {url} has no request of service '{namespace}/{name}' in the last {hours:g} h. Check the"
            f" service's name and that {contract.METRIC_GATEWAY_ARRIVALS} is scraped, or ask for more with --hours."
        )
    past = _past(client, url, namespace, name, start_s)
    return Found(_requests(*columns), int(np.isnan(arrivals).sum()), past)


def _past(client: RangeQuery, url: str, namespace: str, name: str, until_s: float) -> Counts:
    """As long as the operator looks back, up to the step that holds `until_s`; steps without a sample are gaps."""
    step_s = round(PAST.step_s)
    steps = round(PAST.history_s / step_s)
    start_s = math.ceil(until_s / step_s) * step_s - steps * step_s
    columns = [_column(client, url, metric, namespace, name, start_s, steps, step_s) for metric in COUNTERS]
    return Counts(start_s, step_s, *columns)


def _column(
    client: RangeQuery, url: str, metric: str, namespace: str, name: str, start_s: float, steps: int, step_s: int
) -> Array:
    query = f'sum(increase({metric}{{namespace="{namespace}",service="{name}"}}[{step_s}s]))'
    out = np.full(steps, np.nan)
    for first in range(0, steps, CHUNK_STEPS):
        last = min(first + CHUNK_STEPS, steps)
        times = [datetime.fromtimestamp(start_s + at * step_s, UTC) for at in (first + 1, last)]
        for at_s, value in _samples(client, url, query, times[0], times[1], step_s):
            at = round((at_s - start_s) / step_s) - 1
            if 0 <= at < steps and 0 <= value < float("inf"):
                out[at] = value
    return out


def _samples(
    client: RangeQuery, url: str, query: str, first: datetime, last: datetime, step_s: int
) -> list[tuple[float, float]]:
    try:
        answer = client.custom_query_range(query, first, last, str(step_s))
        return [(float(at_s), float(value)) for series in answer for at_s, value in series["values"]]
    except PrometheusApiClientException as error:
        raise CliError(f"Prometheus at {url} refuses: {str(error)[:200]}. Check --prometheus.") from error
    except (requests.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CliError(f"What answers at {url} is no Prometheus. Check --prometheus.") from error
    except (requests.RequestException, ValueError) as error:
        raise CliError(f"Prometheus at {url} does not answer: {cause(error)}. Check --prometheus.") from error


def _requests(arrivals: Array, completed: Array, inputs: Array, outputs: Array) -> Requests:
    """Each minute's requests share the mean lengths of the last hour that has any (tokens are counted at the end)."""
    counts = np.round(np.nan_to_num(arrivals)).astype(np.int64)
    random = np.random.default_rng(0)
    minutes = np.repeat(np.arange(len(counts)), counts)
    times = np.sort(minutes * STEP_S + random.random(len(minutes)) * STEP_S)
    at = np.minimum((times // STEP_S).astype(np.int64), len(counts) - 1)
    ended = _hour_sums(completed)
    mean_input = _hour_sums(inputs) / np.maximum(ended, 1)
    mean_output = _hour_sums(outputs) / np.maximum(ended, 1)
    return Requests(
        times,
        np.maximum(np.round(mean_input[at]), 1).astype(np.int64),
        np.maximum(np.round(mean_output[at] * random.exponential(1.0, len(at))), 1).astype(np.int64),
        float(len(counts) * STEP_S),
    )


def _hour_sums(values: Array) -> Array:
    """(n,) sums of the 60 steps up to each; where nothing was counted, the mean of the whole range over an hour."""
    known = np.nan_to_num(values)
    total = np.concatenate([[0.0], np.cumsum(known)])
    first = np.maximum(np.arange(len(known)) - 59, 0)
    sums = total[1:] - total[first]
    filled: Array = np.where(sums > 0, sums, known.sum() / max(len(known) / 60, 1.0))
    return filled
