"""Marks the pod that leads, for the Services that lead there: only the leader knows decisions and alerts.

Looked at again and again: a write may fail, and what else writes pods may take the label away. Writes only differences.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from crds import contract
from kube.api import Api
from kube.errors import KubeError, NotFound
from kube.resources import PODS

log = logging.getLogger(__name__)

OPERATOR: Final = "app.kubernetes.io/name=foretide-operator"


EVERY_S: Final = 60.0
SOON_S: Final = 5.0
"""After a failure."""


async def keep_marked(client: Api, namespace: str, pod: str) -> None:
    """Does not return. A failure is logged once: scaling does not need the label."""
    failing = False
    while True:
        try:
            await mark_leader(client, namespace, pod)
        except KubeError as error:
            if not failing:
                log.warning("The pod that leads is not marked yet, so its Services may lead to none: %s", error)
            failing = True
        else:
            failing = False
        await asyncio.sleep(SOON_S if failing else EVERY_S)


async def mark_leader(client: Api, namespace: str, pod: str) -> None:
    """`pod` gets the label, then every other pod of the operator loses it. Raises KubeError."""
    pods = await client.list(PODS, namespace, label_selector=OPERATOR)
    for one in sorted(pods, key=lambda each: each["metadata"]["name"] != pod):
        name, labels = one["metadata"]["name"], one["metadata"].get("labels") or {}
        wanted = "true" if name == pod else None
        if labels.get(contract.LABEL_LEADER) != wanted:
            await _label(client, namespace, name, wanted)


async def _label(client: Api, namespace: str, pod: str, value: str | None) -> None:
    try:
        await client.merge_patch(PODS, namespace, pod, {"metadata": {"labels": {contract.LABEL_LEADER: value}}})
    except NotFound:
        log.info("Pod '%s' of the operator is gone and needs no label.", pod)
