"""Apply: the plan of one InferenceService, written in an order that is safe to be cut off anywhere.

Decides nothing. What stands already is not written again; a number is only lowered after the costs of its pods are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from controllers.announce import write_misread
from controllers.apply import Applier, merge_conditions
from controllers.inference_service.caches import BY_SERVICE, Caches, service_place
from controllers.inference_service.loads import LoadBoard
from controllers.plans.children import deployment_name
from controllers.plans.deletion import deletion_costs
from controllers.plans.gateway_api import picker_name
from controllers.plans.healing.values import Restart
from controllers.plans.mig.claims import template_name
from controllers.plans.rollout import Move
from controllers.plans.service import ServicePlan
from controllers.plans.snapshot import Snapshot
from controllers.plans.worker_pod import Manifest, worker_account
from controllers.reading import readable
from controllers.refusals import NOT_TAKEN
from crds.contract import ANNOTATION_DELETION_COST, FINALIZER_SERVICE, LABEL_REVISION
from crds.reading import unread_of
from kube.api import Api
from kube.errors import AnswerError, Conflict, NotFound, Unreachable
from kube.events import Recorder
from kube.resources import DEPLOYMENTS, INFERENCE_SERVICES, PODS, RESOURCE_CLAIM_TEMPLATES, Object

UNSEEN_S: Final = 10.0
"""How long a write of ours may stay invisible before the cache is believed again."""
MOST_BEHIND: Final = 32
"""Versions of one service that are remembered as older than our last write of its status."""


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A service as our last write of its status left it, and the versions that were before."""

    service: Object
    behind: tuple[str, ...]
    at_s: float


@dataclass(slots=True)
class Written:
    """How far the children came."""

    moved: bool = False
    """Numbers of workers were written."""
    refusal: AnswerError | Unreachable | None = None
    """The first."""

    async def of(self, write: Awaitable[bool], *, moves: bool = False) -> bool:
        """Whether it was taken. Raises Unreachable: there is nobody to ask for the next."""
        try:
            self.moved |= await write and moves
        except AnswerError as error:
            self.refusal = self.refusal or error
            return False
        return True


class Writer:
    """All writes of this controller."""

    def __init__(
        self, client: Api, applier: Applier, caches: Caches, loads: LoadBoard, clock: Callable[[], float]
    ) -> None:
        self._client, self._applier, self._caches, self._loads = client, applier, caches, loads
        self._clock = clock
        self._unseen: dict[tuple[str, str], tuple[str, float]] = {}
        """Deployment → the version over which we wrote, and when."""
        self._ahead: dict[tuple[str, str], _Ahead] = {}

    def is_unseen(self, deployment: Object) -> bool:
        """Whether the cache still shows what was there before our own last write."""
        meta = deployment["metadata"]
        version, at_s = self._unseen.get((meta["namespace"], meta["name"]), ("", 0.0))
        return meta.get("resourceVersion") == version and self._clock() - at_s < UNSEEN_S

    def newest(self, service: Object) -> Object:
        """The service that the cache shows, or what we have written since, while the cache does not show it yet.

        A Deployment's change may be seen before our own last status: from the old one, what was decided would be
        decided again, and a revision that was rolled back would be tried once more.
        """
        ahead = self._ahead.get(_place(service))
        if ahead is None:
            return service
        version = service["metadata"].get("resourceVersion")
        # A person's edit may lie between what we read and what we wrote. A server that was set back has small numbers.
        is_recent = self._clock() - ahead.at_s < UNSEEN_S
        if version in ahead.behind or (is_recent and _is_older(version, ahead.service["metadata"]["resourceVersion"])):
            return ahead.service
        del self._ahead[_place(service)]
        return service

    async def hold(self, service: Object) -> None:
        """Our finalizer stands before the first child, so that no end can be missed."""
        await self._set_finalizers(service, [*(service["metadata"].get("finalizers") or ()), FINALIZER_SERVICE])

    async def release(self, service: Object) -> None:
        """Nothing is left to wait for."""
        left = [one for one in service["metadata"].get("finalizers") or () if one != FINALIZER_SERVICE]
        await self._set_finalizers(service, left)

    async def _set_finalizers(self, service: Object, finalizers: Sequence[str]) -> None:
        meta = service["metadata"]
        only_this = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        patch = {"metadata": {**only_this, "finalizers": list(finalizers)}}
        await self._client.merge_patch(INFERENCE_SERVICES, meta["namespace"], meta["name"], patch)

    async def children(self, service: Object, seen: Snapshot, plan: ServicePlan) -> Written:
        """Costs, children, numbers, removals, and at the end our finalizer. What is refused stops nothing else."""
        done = Written()
        try:
            await self._write_costs(seen, plan.lowered)
            await self._write_children(done, seen, plan)
            if plan.release:
                await self.release(service)
        except NOT_TAKEN as error:
            done.refusal = done.refusal or error
        return done

    async def _write_children(self, done: Written, seen: Snapshot, plan: ServicePlan) -> None:
        is_made = True
        for child in plan.children:
            if child["kind"] != DEPLOYMENTS.kind:
                await done.of(self._ensure(child))
            elif done.refusal is None or self._observed(child) is not None:
                is_made = await done.of(self._ensure(child), moves=True)
            else:
                is_made = False  # No pod starts without all that it needs, which stands before it in the plan.
        for move in plan.moves:
            if is_made or move.after > move.before:  # Nobody leaves for a revision that does not come.
                await done.of(self._set_replicas(seen, move), moves=True)
        for revision in plan.remove:
            await done.of(self._remove(seen, revision), moves=True)
        for revision in plan.remove_claims:
            await done.of(self._remove_claim(seen, revision))

    async def status(self, service: Object, plan: ServicePlan, now: datetime) -> bool:
        """Fields and conditions; nothing when they say the same already."""
        assert plan.status is not None, "a plan that writes no status says so by None"
        old = service.get("status") or {}
        conditions = merge_conditions(
            old.get("conditions"),
            [one.dump() for one in plan.conditions],
            now=now,
            generation=plan.status["observedGeneration"],
        )
        wanted = plan.status | {"conditions": conditions}
        stored = await self._applier.status(INFERENCE_SERVICES, service, wanted, old)
        if stored is None:
            return False
        before = self._ahead.get(_place(service))
        behind = (*(before.behind if before else ()), str(service["metadata"].get("resourceVersion")))
        self._ahead[_place(service)] = _Ahead(readable(stored), behind[-MOST_BEHIND:], self._clock())
        return True

    async def misread(self, recorder: Recorder, service: Object, now: datetime) -> None:
        """Nothing but what a person has to know."""
        await write_misread(
            self._applier, recorder, INFERENCE_SERVICES, service, unread_of(service),
            observed=service.get("status") or {}, now=now,
        )  # fmt: skip

    async def restart(self, namespace: str, one: Restart) -> None:
        """Exactly this pod; its Deployment makes another. One that has gone already is as good."""
        with contextlib.suppress(NotFound, Conflict):
            await self._client.delete(PODS, namespace, one.pod, uid=one.uid or None, grace_period_s=one.grace_s)

    def forget(self, namespace: str, name: str) -> None:
        """The service is gone, and its children with it."""
        for kind in self._caches.surroundings:
            for child in (worker_account(name), picker_name(name)):
                self._applier.forget(kind, namespace, child)
        for deployment in self._caches.deployments.by(BY_SERVICE, service_place(namespace, name)):
            for kind in (DEPLOYMENTS.kind, RESOURCE_CLAIM_TEMPLATES.kind):
                self._applier.forget(kind, namespace, deployment["metadata"]["name"])
        self._applier.forget(INFERENCE_SERVICES.kind, namespace, name)
        self._ahead.pop((namespace, name), None)
        mine = [place for place in self._unseen if (place[0], place[1].rpartition("-")[0]) == (namespace, name)]
        for place in mine:
            del self._unseen[place]

    async def _ensure(self, child: Manifest) -> bool:
        observed = self._observed(child)
        if await self._applier.ensure(child, observed) is None:
            return False
        if child["kind"] == DEPLOYMENTS.kind and observed is not None:
            self._wrote(observed)
        return True

    def _observed(self, child: Manifest) -> Object | None:
        meta, kind = child["metadata"], child["kind"]
        cache = self._caches.deployments if kind == DEPLOYMENTS.kind else self._caches.surroundings[kind]
        return cache.get(meta["namespace"], meta["name"])

    async def _set_replicas(self, seen: Snapshot, move: Move) -> bool:
        """Only the number: the template of an earlier revision is as it was written then."""
        name = deployment_name(seen.name, move.revision)
        observed = self._caches.deployments.get(seen.namespace, name)
        if observed is None or self.is_unseen(observed):
            return False
        patch = {"metadata": {"uid": observed["metadata"]["uid"]}, "spec": {"replicas": move.after}}
        await self._client.merge_patch(DEPLOYMENTS, seen.namespace, name, patch)
        self._wrote(observed)
        return True

    async def _remove(self, seen: Snapshot, revision: str) -> bool:
        observed = self._caches.deployments.get(seen.namespace, deployment_name(seen.name, revision))
        if observed is None or observed["metadata"]["labels"].get(LABEL_REVISION) != revision:
            return False
        return await self._applier.delete(DEPLOYMENTS, observed)

    async def _remove_claim(self, seen: Snapshot, revision: str) -> bool:
        cache = self._caches.surroundings[RESOURCE_CLAIM_TEMPLATES.kind]
        observed = cache.get(seen.namespace, template_name(seen.name, revision))
        return observed is not None and await self._applier.delete(RESOURCE_CLAIM_TEMPLATES, observed)

    async def _write_costs(self, seen: Snapshot, revisions: Sequence[str]) -> None:
        concerned = [worker for worker in seen.workers if worker.revision in revisions]
        for revision in revisions:
            mine = [worker for worker in concerned if worker.revision == revision]
            if sum(worker.ready and not worker.leaving for worker in mine) < 2:
                continue  # No choice between workers, or none that serves.
            for name, cost in deletion_costs(mine, await self._loads.scrape(mine), seen.evacuating).items():
                await self._write_cost(seen.namespace, name, cost)

    async def _write_cost(self, namespace: str, pod: str, cost: int) -> None:
        patch = {"metadata": {"annotations": {ANNOTATION_DELETION_COST: str(cost)}}}
        try:
            await self._client.merge_patch(PODS, namespace, pod, patch)
        except NotFound:
            return  # It went by itself.

    def _wrote(self, observed: Object) -> None:
        meta = observed["metadata"]
        self._unseen[meta["namespace"], meta["name"]] = (str(meta.get("resourceVersion")), self._clock())


def _place(service: Object) -> tuple[str, str]:
    meta = service["metadata"]
    return meta["namespace"], meta["name"]


def _is_older(version: str | None, than: str) -> bool:
    """Where the server's versions are numbers; what is none is compared with nothing."""
    return version is not None and version.isdecimal() and than.isdecimal() and int(version) < int(than)
