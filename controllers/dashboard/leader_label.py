"""Marks the pod that leads, so that the dashboard's Service leads there: only the leader knows the decisions.

Written once, after taking over, and only where it is not so already.
"""

from __future__ import annotations

import logging
from typing import Final

from crds import contract
from kube.api import Api
from kube.errors import KubeError, NotFound
from kube.resources import PODS

log = logging.getLogger(__name__)

OPERATOR: Final = "app.kubernetes.io/name=foretide-operator"


async def mark_leader(client: Api, namespace: str, pod: str) -> None:
    """`pod` gets the label, every other pod of the operator loses it. A failure is logged: scaling does not need it."""
    try:
        pages = [page async for page in client.pages(PODS, namespace, label_selector=OPERATOR)]
        for one in (item for page in pages for item in page.items):
            name, labels = one["metadata"]["name"], one["metadata"].get("labels") or {}
            wanted = "true" if name == pod else None
            if labels.get(contract.LABEL_LEADER) != wanted:
                await _label(client, namespace, name, wanted)
    except KubeError as error:
        log.warning("The pod that leads was not marked, so the dashboard's Service may lead to none: %s", error)


async def _label(client: Api, namespace: str, pod: str, value: str | None) -> None:
    try:
        await client.merge_patch(PODS, namespace, pod, {"metadata": {"labels": {contract.LABEL_LEADER: value}}})
    except NotFound:
        log.info("Pod '%s' of the operator is gone and needs no label.", pod)
