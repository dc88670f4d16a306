"""Observe one Model, keep its volume, claim and status right; let it go only when no InferenceService needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from controllers.announce import write_misread, write_verdict
from controllers.apply import Applier
from controllers.plans.model import Facts, Node, assess, claim_of, field_manager
from controllers.plans.model_manifests import (
    Agents,
    is_released,
    persistent_volume,
    persistent_volume_claim,
    volume_problem,
    with_its_nodes,
)
from controllers.plans.model_volume import ModelVolume, model_volume
from controllers.refusals import Refusals
from controllers.runtime.interface import Key, Outcome
from crds.contract import API_VERSION, FINALIZER_MODEL
from crds.model import MeasuredProfile, ModelSpec, NodeCopy
from crds.reading import unread_of
from kube.api import Api, find
from kube.errors import AnswerError
from kube.events import Recorder
from kube.informer import Informer
from kube.resources import MODELS, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, Object

END_LOOK_S: Final = 2.0
"""A step of a Model's end is looked at again after this: the event that it is done may be lost."""
Measured = Callable[[str], Sequence[MeasuredProfile]]
"""Uid of a Model → what its workers have measured of themselves."""


class ModelReconciler:
    """Needs `services` with the index `by_model` (`namespace/name`)."""

    kind = MODELS.kind

    def __init__(
        self,
        client: Api,
        models: Informer[Object],
        services: Informer[Object],
        nodes: Informer[Node],
        volumes: Informer[Object],
        claims: Informer[Object],
        agents: Agents,
        applier: Applier,
        recorder: Recorder,
        measured: Measured,
    ) -> None:
        self._client, self._agents = client, agents
        self._models, self._services, self._nodes = models, services, nodes
        self._volumes, self._claims = volumes, claims
        self._applier, self._recorder, self._measured = applier, recorder, measured
        self._dismissed: dict[Key, set[str]] = {}
        """Nodes that are gone, whose entries were taken out though the cache may still show them."""
        self._refusals = Refusals()

    async def reconcile(self, key: Key) -> Outcome:
        obj = self._models.get(key.namespace, key.name)
        if obj is None:
            self._applier.forget(key.kind, key.namespace, key.name)
            self._dismissed.pop(key, None)
            self._refusals.forget(key)
            return Outcome()
        namespace, source = obj["metadata"]["namespace"], obj["spec"]["source"]
        volume = model_volume(namespace, key.name, source)
        users = [one["metadata"]["name"] for one in self._services.by("by_model", f"{namespace}/{key.name}")]
        if obj["metadata"].get("deletionTimestamp"):
            if not users and await self._release(obj, volume):
                return Outcome()
            await self._status(obj, volume, users)
            return Outcome() if users else Outcome(requeue_after_s=END_LOOK_S)
        if unread := unread_of(obj):
            await write_misread(
                self._applier, self._recorder, MODELS, obj, unread, observed=_ours(obj), now=datetime.now(UTC)
            )
            return Outcome()  # Copies and volume stay as they are.
        try:
            await self._hold(obj)
            problem = await self._ensure_volume(obj, volume)
        except AnswerError as error:
            self._refusals.hear(key, error, datetime.now(UTC), generation=obj["metadata"].get("generation", 0))
            # What stands goes on: a change of it that is refused takes nothing away from those who mount it.
            refused = None if self._stands(obj, volume) else self._refusals.told(key)
            await self._status(obj, volume, users, refused=refused)
            raise
        self._refusals.forget(key)
        await self._status(obj, volume, users, problem)
        return Outcome()

    # --- volume and claim ------------------------------------------------------------------------------------
    def _stands(self, obj: Object, volume: ModelVolume) -> bool:
        """Whether the cache shows all that workers mount, or there is nothing of ours to mount."""
        if volume.volume_name is None:
            return True
        claim = self._claims.get(obj["metadata"]["namespace"], volume.claim_name)
        is_there = claim is not None and _is_owned_by(claim, obj)
        return is_there and self._volumes.get(None, volume.volume_name) is not None

    async def _ensure_volume(self, obj: Object, volume: ModelVolume) -> str | None:
        """Why the volume can never be bound, None when it stands or soon will."""
        if volume.volume_name is None:
            return None
        wanted = persistent_volume(obj, volume, self._agents)
        observed = self._volumes.get(None, volume.volume_name)
        claim = self._claims.get(obj["metadata"]["namespace"], volume.claim_name)
        problem = volume_problem(wanted, observed)
        if problem is not None:
            return problem
        if is_released(observed, claim):
            patch = {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}}
            await self._client.merge_patch(PERSISTENT_VOLUMES, None, volume.volume_name, patch)
        await self._applier.ensure(with_its_nodes(wanted, observed), observed)
        await self._applier.ensure(persistent_volume_claim(obj, volume), claim)
        return None

    async def _release(self, obj: Object, volume: ModelVolume) -> bool:
        """Claim, then volume, then the finalizer; each waits until the one before is gone. True when all is done.

        Asks the API server: a cache that lost an event would leave behind what nobody looks for again.
        """
        if volume.volume_name is not None:
            claim = await find(self._client, PERSISTENT_VOLUME_CLAIMS, obj["metadata"]["namespace"], volume.claim_name)
            if claim is not None and _is_owned_by(claim, obj):
                await self._applier.delete(PERSISTENT_VOLUME_CLAIMS, claim)
                return False
            observed = await find(self._client, PERSISTENT_VOLUMES, None, volume.volume_name)
            if observed is not None and volume_problem(persistent_volume(obj, volume, self._agents), observed) is None:
                await self._applier.delete(PERSISTENT_VOLUMES, observed)
                return False
        await self._finalizers(obj, [one for one in _finalizers(obj) if one != FINALIZER_MODEL])
        self._applier.forget(MODELS.kind, obj["metadata"]["namespace"], obj["metadata"]["name"])
        return True

    async def _hold(self, obj: Object) -> None:
        if FINALIZER_MODEL not in _finalizers(obj):
            await self._finalizers(obj, [*_finalizers(obj), FINALIZER_MODEL])

    async def _finalizers(self, obj: Object, wanted: list[str]) -> None:
        meta = obj["metadata"]
        if wanted == _finalizers(obj):
            return
        patch = {"metadata": {"finalizers": wanted, "resourceVersion": meta["resourceVersion"]}}
        await self._client.merge_patch(MODELS, meta["namespace"], meta["name"], patch)

    # --- status ----------------------------------------------------------------------------------------------
    async def _status(
        self,
        obj: Object,
        volume: ModelVolume,
        users: list[str],
        problem: str | None = None,
        refused: str | None = None,
    ) -> None:
        result = assess(replace(self._facts(obj, users, problem, volume), refused=refused))
        await write_verdict(
            self._applier, self._recorder, MODELS, obj, result.fields, result.conditions,
            observed=_ours(obj), now=datetime.now(UTC),
        )  # fmt: skip
        await self._dismiss(obj, result.strangers)

    def _facts(self, obj: Object, users: list[str], problem: str | None, volume: ModelVolume) -> Facts:
        observed: dict[str, Any] = obj.get("status") or {}
        spec = ModelSpec.model_validate(obj["spec"])
        claim = self._claims.get(obj["metadata"]["namespace"], volume.claim_name) if claim_of(spec.source) else None
        return Facts(
            spec=spec,
            generation=obj["metadata"].get("generation", 0),
            copies=[NodeCopy.model_validate(one) for one in observed.get("nodes") or []],
            nodes=self._nodes.items(),
            agents_on=self._agents.node_selector,
            used_by=users,
            digest_before=observed.get("digest"),
            claim_phase=None if claim is None else (claim.get("status") or {}).get("phase") or "Pending",
            volume_problem=problem,
            deleting="deletionTimestamp" in obj["metadata"],
            profiles=[MeasuredProfile.model_validate(one) for one in observed.get("profiles") or []],
            measured=self._measured(obj["metadata"]["uid"]),
        )

    async def _dismiss(self, obj: Object, strangers: Sequence[str]) -> None:
        """Take the entries of nodes that are gone out of the list, in the name of their agents: once, and once more
        when such a node has come back and gone again."""
        done = self._dismissed.setdefault(Key.of(obj), set())
        done.intersection_update(strangers)
        for node in strangers:
            if node not in done:
                await self._take_out(obj, node)
                done.add(node)

    async def _take_out(self, obj: Object, node: str) -> None:
        meta = obj["metadata"]
        manifest = {
            "apiVersion": API_VERSION,
            "kind": MODELS.kind,
            "metadata": {key: meta[key] for key in ("namespace", "name", "uid")},
            "status": {},
        }
        await self._client.apply(MODELS, manifest, field_manager=field_manager(node), subresource="status")


def _ours(obj: Object) -> dict[str, Any]:
    """Of its status: `nodes` belongs to the agents, neither compared nor written here."""
    return {key: value for key, value in (obj.get("status") or {}).items() if key != "nodes"}


def _finalizers(obj: Object) -> list[str]:
    return list(obj["metadata"].get("finalizers") or [])


def _is_owned_by(claim: Object, model: Object) -> bool:
    owners = claim["metadata"].get("ownerReferences") or []
    return any(owner.get("uid") == model["metadata"]["uid"] for owner in owners)
