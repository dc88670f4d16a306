"""How many requests of each service met the targets of their SLA, over all gateways: what steers its quantile.

Sums of what gateways counted while they were watched; one that came newly, or was reset, begins where it is found.
In memory only: an operator that starts anew begins to count again, and so does the steering.
"""

from __future__ import annotations

from collections.abc import Mapping

from controllers.history.counters import read_counters
from controllers.history.interface import ServiceId
from crds import contract
from forecasting.policy import Judged

_COUNTERS = (contract.METRIC_GATEWAY_COMPLETED, contract.METRIC_GATEWAY_GOOD)


class Goodput:
    """`hear` what gateways show, and ask for `judged`."""

    def __init__(self) -> None:
        self._pages: dict[str, dict[ServiceId, list[float]]] = {}
        self._sums: dict[ServiceId, list[float]] = {}
        self._heard_s = 0.0

    def hear(self, texts: Mapping[str, str], now_s: float) -> None:
        """Metrics pages by gateway; one that did not answer is left out and then begins anew."""
        if not texts:
            return
        pages = {gateway: read_counters(text, _COUNTERS) for gateway, text in texts.items()}
        for gateway in pages.keys() & self._pages.keys():
            self._add(pages[gateway], self._pages[gateway])
        known = set().union(*pages.values())
        self._sums = {service: sums for service, sums in self._sums.items() if service in known}
        self._pages, self._heard_s = pages, now_s

    def _add(self, page: Mapping[ServiceId, list[float]], before: Mapping[ServiceId, list[float]]) -> None:
        for service, (came, good) in page.items():
            came_before, good_before = before.get(service, (0.0, 0.0))
            if came >= came_before and good >= good_before:
                sums = self._sums.setdefault(service, [0.0, 0.0])
                sums[0] += came - came_before
                sums[1] += good - good_before

    def judged(self, service: ServiceId) -> Judged | None:
        """None of a service of which no gateway has counted anything yet."""
        sums = self._sums.get(service)
        return None if sums is None else Judged(self._heard_s, *sums)
