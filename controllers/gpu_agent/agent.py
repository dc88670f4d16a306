"""The loop: wait for a fault, write it onto the Node; write the geometry once. What a fault means is for others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from controllers.gpu_agent.sources import Event, Source
from controllers.gpu_agent.usage import UsageMetrics
from controllers.plans.mig.faults import Action, Fault, action_of, dump_faults, last_of, read_faults
from crds.contract import ANNOTATION_FAULTS, ANNOTATION_MIG_GEOMETRY
from kube.api import Api
from kube.errors import Conflict, KubeError
from kube.resources import NODES

log = logging.getLogger(__name__)

WAIT_S: Final = 5.0
RETRY_S: Final = 2.0
KEPT: Final = 20
"""Faults on the Node; a card that reports thousands must not fill etcd."""


class Agent:
    """Of one node. Faults that nobody needs to act on are not written."""

    def __init__(
        self,
        client: Api,
        node: str,
        source: Source,
        clock: Callable[[], float],
        metrics: UsageMetrics,
        *,
        steady_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives Unix time; the steady one tells whether the loop moves."""
        self._client, self._node, self._source, self._clock = client, node, source, clock
        self._metrics, self._steady_clock = metrics, steady_clock
        self._waiting: tuple[Fault, ...] = ()
        self.last_step_s = steady_clock()

    async def run(self) -> None:
        """For ever. Raises SourceError when the driver cannot be asked any more: a restart begins afresh."""
        geometry = await asyncio.to_thread(self._source.geometry)
        await self._until_written({ANNOTATION_MIG_GEOMETRY: geometry} if geometry else {})
        while True:
            await self.step()

    async def step(self) -> None:
        """One wait, and what it brought. What could not be written is kept for the next step."""
        self.last_step_s = self._steady_clock()
        event = await asyncio.to_thread(self._source.wait, WAIT_S)
        if event is not None:
            self._heard(event)
        if self._waiting:
            try:
                await self._write_faults()
            except KubeError as error:
                log.warning("Faults of node '%s' are not written yet: %s", self._node, error)

    def _heard(self, event: Event) -> None:
        action = action_of(event.xid)
        self._metrics.heard(event.gpu, action)
        log.warning("GPU %s: XID %d: %s.", event.gpu, event.xid, action.value)
        if action is not Action.IGNORE:
            self._waiting = last_of([*self._waiting, Fault(self._clock(), event.xid, event.gpu)], KEPT)

    async def _write_faults(self) -> None:
        node = await self._client.get(NODES, None, self._node)
        known = read_faults((node["metadata"].get("annotations") or {}).get(ANNOTATION_FAULTS))
        faults = last_of([*known, *self._waiting], KEPT)
        version = node["metadata"]["resourceVersion"]
        await self._patch({ANNOTATION_FAULTS: dump_faults(faults)}, version)
        self._waiting = ()

    async def _until_written(self, annotations: dict[str, str]) -> None:
        while annotations:
            self.last_step_s = self._steady_clock()
            try:
                return await self._patch(annotations, None)
            except Conflict:
                continue
            except KubeError as error:
                log.warning("Node '%s' is not written yet: %s", self._node, error)
                await asyncio.sleep(RETRY_S)

    async def _patch(self, annotations: dict[str, str], version: str | None) -> None:
        metadata: dict[str, Any] = {"annotations": annotations}
        if version is not None:
            metadata["resourceVersion"] = version
        await self._client.merge_patch(NODES, None, self._node, {"metadata": metadata})
