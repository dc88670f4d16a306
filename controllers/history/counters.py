"""From the counters that gateways show to what happened in between. Pure: pages and times in, increments out.

A counter that fell was reset and counts from zero. A gateway that was not heard for too long tells nothing about the
time in between: its next page is only where counting begins again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from controllers.history.interface import ServiceId
from crds import contract

COUNTERS: Final = (
    contract.METRIC_GATEWAY_ARRIVALS,
    contract.METRIC_GATEWAY_COMPLETED,
    contract.METRIC_GATEWAY_INPUT_TOKENS,
    contract.METRIC_GATEWAY_OUTPUT_TOKENS,
)
"""In the order of a row."""
Row = tuple[float, float, float, float]
Page = Mapping[ServiceId, Row]
_ZERO: Final[Row] = (0.0, 0.0, 0.0, 0.0)
LATE_AFTER: Final = 3.0
"""Periods without a word from a gateway, after which what it counted meanwhile belongs to no time that is known."""


def read_page(text: str) -> dict[ServiceId, Row]:
    """The four counters of every service on a metrics page. Lines that are not understood are left out."""
    found = read_counters(text, COUNTERS)
    return {service: (row[0], row[1], row[2], row[3]) for service, row in found.items()}


def read_counters(text: str, names: Sequence[str]) -> dict[ServiceId, list[float]]:
    """Some counters of every service on a metrics page, in the order of `names`; what is not there is 0."""
    found: dict[ServiceId, list[float]] = {}
    for line in text.splitlines():
        name, brace, rest = line.partition("{")
        if not brace or name not in names:
            continue
        labels, _, value = rest.partition("} ")
        service, number = _service(labels), _number(value)
        if service is not None and number is not None:
            found.setdefault(service, [0.0] * len(names))[names.index(name)] = number
    return found


def _service(labels: str) -> ServiceId | None:
    """Names of Kubernetes objects hold neither quotes nor commas, so no unescaping is needed."""
    pairs = dict(one.split("=", 1) for one in labels.split(",") if "=" in one)
    namespace, name = pairs.get("namespace", "").strip('"'), pairs.get("service", "").strip('"')
    return ServiceId(namespace, name) if namespace and name else None


def _number(text: str) -> float | None:
    words = text.split()
    try:
        value = float(words[0]) if words else float("nan")
    except ValueError:
        return None
    return value if 0 <= value < 1e18 else None


@dataclass(frozen=True, slots=True)
class Seen:
    """The last page of one gateway."""

    at_s: float
    page: Page


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened since the round before: per service a row, and how long that was. No seconds: nothing is known."""

    seconds: float
    rows: dict[ServiceId, Row] = field(default_factory=dict)


def tally(
    before: Mapping[str, Seen], now: Mapping[str, Page], last_round_s: float | None, now_s: float, period_s: float
) -> Tally:
    """`before` and `now` are by gateway. A round in which a gateway said nothing still counts what the others say.

    The seconds are those since `last_round_s`; none when that is too long ago or nobody answered.
    """
    late_s = LATE_AFTER * period_s
    if not now or last_round_s is None or not 0 < now_s - last_round_s <= late_s:
        return Tally(0.0)
    rows: dict[ServiceId, Row] = {}
    for gateway, page in now.items():
        seen = before.get(gateway)
        if seen is None or now_s - seen.at_s > late_s:
            # Unknown until now: it only tells where its counting begins, and which services there are.
            rows |= {service: rows.get(service, _ZERO) for service in page}
            continue
        for service, row in page.items():
            # A service that the page before did not have began at zero since then.
            rows[service] = _added(rows.get(service, _ZERO), _increase(seen.page.get(service, _ZERO), row))
    return Tally(now_s - last_round_s, rows)


def _increase(before: Row, now: Row) -> Row:
    a, b, c, d = (after - old if after >= old else after for old, after in zip(before, now, strict=True))
    return a, b, c, d


def _added(one: Row, other: Row) -> Row:
    a, b, c, d = (x + y for x, y in zip(one, other, strict=True))
    return a, b, c, d
