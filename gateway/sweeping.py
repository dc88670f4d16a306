"""Looks at all endpoints of a service together, now and then: outliers go, hot spots are cooled, the past fades.

Applies `health.outliers` and `routing.hotspots`. What a single request shows is judged when it shows it, not here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.health.outliers import OutlierPolicy, outliers
from gateway.routing.hotspots import HotSpotPolicy, Spot, heats

if TYPE_CHECKING:
    from gateway.service_state import ServiceState

log = logging.getLogger(__name__)

OUTLIERS, HOT_SPOTS = OutlierPolicy(), HotSpotPolicy()


def sweep(state: ServiceState, now_s: float) -> None:
    _cool(state)
    _compare(state, now_s)


def _cool(state: ServiceState) -> None:
    members = state.picker.members
    spots = [Spot(one.in_flight / one.capacity, one.hot_sweeps) for one in members]
    for one, heat in zip(members, heats(spots, HOT_SPOTS), strict=True):
        one.hot_sweeps = heat.hot_sweeps
        cooled = HOT_SPOTS.cooled if heat.cools else 1.0
        if cooled != one.cooled:
            one.cooled = cooled
            state.reshare()
            verb = "is a hot spot" if heat.cools else "is a hot spot no more"
            key, pod = state.service.key, one.endpoint.pod
            log.info("%s: endpoint %s %s: %s", key, pod, verb, heat.message, extra=key.log_fields(endpoint=pod))


def _compare(state: ServiceState, now_s: float) -> None:
    # Revisions are compared by the operator, who knows that one of them is new.
    for members in state.picker.by_revision():
        for index, why in outliers([one.record() for one in members], OUTLIERS).items():
            state.eject(members[index], why, now_s)
    for one in state.backends:
        if one.errors:
            state.reshare()
        one.age()
