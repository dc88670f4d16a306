"""The reconciler of GPUPools: observe → plan → write the manager's configuration, then Nodes, then the status.

The order is safe to be cut off anywhere: a layout stands in the manager's configuration before a Node asks for it, and
every patch of a Node carries the record of what it does, over the version that was seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import yaml
from pydantic import ValidationError

from controllers.announce import write_misread, write_verdict
from controllers.apply import Applier
from controllers.gpu_pool.observe import Caches, Observer
from controllers.gpu_pool.remembered import Remembered
from controllers.plans.mig.configs import layouts_of, mig_configs
from controllers.plans.mig.pool import PoolPlan, PoolSnapshot, plan_pool
from controllers.plans.mig.pool_status import pool_status
from controllers.plans.mig.records import NodeView, Record
from controllers.plans.mig.repartition import Move
from controllers.runtime.interface import Key, Outcome
from crds.contract import ANNOTATION_REPARTITION, FINALIZER_POOL, LABEL_MANAGED_BY, MANAGED_BY
from crds.reading import unread_in
from kube.api import Api
from kube.errors import Conflict, NotFound
from kube.events import Recorder
from kube.resources import GPU_POOLS, NODES, PODS, Object

log = logging.getLogger(__name__)

BEHIND_S: Final = 1.0
CONFIG_KEY: Final = "config.yaml"


def _wall_clock() -> datetime:
    return datetime.now(UTC)


class GpuPoolReconciler:
    """Keeps in memory only answers of the solver: all that a repartition needs lies on the Nodes."""

    kind = GPU_POOLS.kind

    def __init__(
        self,
        client: Api,
        caches: Caches,
        applier: Applier,
        recorder: Recorder,
        config_map: tuple[str, str],
        *,
        wall_clock: Callable[[], datetime] = _wall_clock,
    ) -> None:
        """`config_map`: namespace and name of the MIG manager's configuration."""
        self._client, self._caches = client, caches
        self._applier, self._recorder = applier, recorder
        self._config_map, self._wall_clock = config_map, wall_clock
        self._observer = Observer(caches)
        self._solvers: dict[str, Remembered] = {}

    async def reconcile(self, key: Key) -> Outcome:
        pool = self._caches.pools.get(None, key.name)
        if pool is None:
            self._applier.forget(key.kind, None, key.name)
            self._solvers.pop(key.name, None)
            return Outcome()
        try:
            return await self._look(pool)
        except (Conflict, NotFound) as error:
            log.debug("%s: %s", key, error)
            return Outcome(BEHIND_S)

    async def _look(self, pool: Object) -> Outcome:
        meta = pool["metadata"]
        if not meta.get("deletionTimestamp") and FINALIZER_POOL not in (meta.get("finalizers") or ()):
            await self._set_finalizers(pool, [*(meta.get("finalizers") or ()), FINALIZER_POOL])
            return Outcome()  # The change it makes wakes the key.
        now = self._wall_clock()
        try:
            seen = self._observer.snapshot(pool)
        except ValidationError as error:
            await write_misread(
                self._applier, self._recorder, GPU_POOLS, pool, unread_in(error, "spec"),
                observed=pool.get("status") or {}, now=now,
            )  # fmt: skip
            return Outcome()
        # The solver takes seconds on large pools; the loop goes on meanwhile.
        solver = self._solvers.setdefault(seen.name, Remembered())
        plan = await asyncio.to_thread(plan_pool, seen, now.timestamp(), solver)
        await self._write_config(plan)
        wrote = [await self._write_node(seen, move) for move in plan.moves]
        if seen.deleting and not plan.moves:
            left = [one for one in meta.get("finalizers") or () if one != FINALIZER_POOL]
            await self._set_finalizers(pool, left)
            return Outcome()
        await self._write_status(pool, seen, plan, now)
        return Outcome(BEHIND_S if any(wrote) else plan.look_again_s)

    async def _set_finalizers(self, pool: Object, finalizers: list[str]) -> None:
        meta = pool["metadata"]
        only_this = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        await self._client.merge_patch(
            GPU_POOLS, None, meta["name"], {"metadata": {**only_this, "finalizers": finalizers}}
        )

    async def _write_config(self, plan: PoolPlan) -> None:
        """Every layout that a Node names or is about to name."""
        layouts = layouts_of(self._observer.all_nodes()) | {
            record.gpus for move in plan.moves if (record := _record_in(move)) is not None
        }
        namespace, name = self._config_map
        text = yaml.safe_dump(mig_configs(layouts), sort_keys=True)
        wanted = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"namespace": namespace, "name": name, "labels": {LABEL_MANAGED_BY: MANAGED_BY}},
            "data": {CONFIG_KEY: text},
        }
        await self._applier.ensure(wanted, self._caches.configs.get(namespace, name))

    async def _write_node(self, seen: PoolSnapshot, move: Move) -> bool:
        """Over the version that was seen: a Node that changed since is looked at again instead."""
        node = next(one for one in seen.nodes if one.name == move.node)
        for pod in move.drain:
            log.info("Draining %s/%s from node %s.", pod.namespace, pod.name, node.name)
            await self._client.delete(PODS, pod.namespace, pod.name, uid=pod.uid)
        if move.patch is None:
            return bool(move.drain)
        patch: dict[str, Any] = {**move.patch}
        patch["metadata"] = {**patch["metadata"], "resourceVersion": node.resource_version}
        await self._client.merge_patch(NODES, None, node.name, patch)
        log.info("Node %s: %s", node.name, move.message)
        return True

    async def _write_status(self, pool: Object, seen: PoolSnapshot, plan: PoolPlan, now: datetime) -> None:
        fields, made = pool_status(seen, plan, now.timestamp())
        observed: dict[str, Any] = pool.get("status") or {}
        await write_verdict(self._applier, self._recorder, GPU_POOLS, pool, fields, made, observed=observed, now=now)


def _record_in(move: Move) -> Record | None:
    annotations = (move.patch or {}).get("metadata", {}).get("annotations") or {}
    return Record.read(annotations.get(ANNOTATION_REPARTITION))


def same_for_plans(old: NodeView | None, new: NodeView | None) -> bool:
    """Whether a Node changed in nothing that a plan reads: heartbeats are most of its changes."""
    if old is None or new is None:
        return old is new
    return _without_version(old) == _without_version(new)


def _without_version(node: NodeView) -> NodeView:
    return replace(node, resource_version="")
