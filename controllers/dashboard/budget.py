"""How much of an SLA's error budget is left, from what the gateways counted over its window. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from controllers.history.interface import Counts
from crds.fields import seconds
from kube.resources import Object

Json = dict[str, Any]


def window_s(sla: Object | None) -> float | None:
    """The window over which availability is counted; None where the SLA has none."""
    window = None if sla is None else sla["spec"].get("window")
    return None if window is None else float(seconds(window))


def error_budget(sla: Object, counts: Counts) -> Json | None:
    """What is left: 1 is all, 0 none, below 0 it is overspent. None while nothing was counted.

    A request has failed when no worker answered it in full; one that is still running is not told apart from it.
    """
    availability = sla["spec"].get("availability")
    requests = float(np.nansum(counts.arrivals))
    if availability is None or requests == 0:
        return None
    failed = max(0.0, requests - float(np.nansum(counts.completed)))
    allowed = requests * (1.0 - float(availability.rstrip("%")) / 100.0)
    message = (
        f"{failed:.0f} of {requests:.0f} requests were not answered in full; "
        f"{availability} over {sla['spec']['window']} allows {allowed:.1f}."
    )
    left = 1.0 - failed / allowed if allowed > 0 else float(failed == 0)
    return {"requests": requests, "failed": failed, "allowed": allowed, "left": left, "message": message}
