"""Which zone this gateway runs in: its node's label. Asked once, since a node does not move.

Serves on without an answer: then no zone is nearer than another, which costs some latency and nothing else.
"""

from __future__ import annotations

import logging
from typing import Final

from kube.api import Api
from kube.errors import KubeError
from kube.resources import NODES

log = logging.getLogger(__name__)

LABEL_ZONE: Final = "topology.kubernetes.io/zone"


async def zone_of(client: Api, node: str | None) -> str | None:
    if node is None:
        return None
    try:
        labels = (await client.get(NODES, None, node))["metadata"].get("labels") or {}
    except KubeError as error:
        log.warning("The zone is not known, so none is preferred: %s", error)
        return None
    return labels.get(LABEL_ZONE)
