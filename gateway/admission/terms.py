"""What a Tenant's object says of its requests: limits, share, highest class and prices. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from crds import tenant as api
from crds.fields import quantity, seconds


class Priority(IntEnum):
    """Class of a request; the lower the number, the sooner its first token is due."""

    P0 = 0
    P1 = 1
    P2 = 2
    P3 = 3


FIRST_TOKEN_S: Final = (0.1, 1.0, 10.0, 60.0)
"""Within which a class means to answer; best effort too has one, by which it grows older."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Over all gateways together; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    bytes_per_second: int | None = None
    burst_s: float = 10.0
    """How many seconds' worth of the limits over time may be saved up."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Of one token, in any one currency."""

    input: float = 0.0
    output: float = 0.0


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a Tenant is served."""

    limits: Limits | None = None
    weight: float = 1.0
    max_priority: Priority = Priority.P0
    prices: Prices | None = None


def terms_of(limits: api.Limits | None, weight: float, max_priority: str, prices: api.Prices | None) -> Terms:
    """From the words of the API, or of a file with the same words."""
    return Terms(
        limits=_limits(limits) if limits else None,
        weight=weight,
        max_priority=Priority[max_priority],
        prices=_prices(prices) if prices else None,
    )


def _limits(limits: api.Limits) -> Limits:
    return Limits(
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.concurrency,
        limits.bytes_per_second,
        seconds(limits.burst),
    )


def _prices(prices: api.Prices) -> Prices:
    return Prices(float(quantity(prices.input)) / 1000, float(quantity(prices.output)) / 1000)
