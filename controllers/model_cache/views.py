"""What the agent keeps of the objects it watches: a few fields each, so that ten thousand Models stay small."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controllers.plans.model import admits, claim_of
from controllers.plans.model_cache import ModelRef
from crds.contract import LABEL_SERVICE
from crds.model import ModelSpec, NodeCopy
from crds.reading import explained, understood, unread_of
from kube.api import Api
from kube.informer import Informer
from kube.resources import MODELS, NODES, PODS, Object

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelView:
    """A Model as this node's agent sees it; the entries of other nodes are left out."""

    ref: ModelRef
    uid: str
    deleting: bool
    spec: ModelSpec
    digest: str | None
    """What the weights must have: spec.digest, else what the first copy of any node had."""
    entry: NodeCopy | None
    """This node's item of status.nodes."""


@dataclass(frozen=True, slots=True)
class UnreadModel:
    """A Model of another release's rules: what is there of it stays as it is."""

    ref: ModelRef


def model_view(node_name: str) -> Callable[[Object], ModelView | UnreadModel]:
    """Projection for the informer."""

    def keep(obj: Object) -> ModelView | UnreadModel:
        obj = understood({**obj, "kind": MODELS.kind})
        meta, status = obj["metadata"], obj.get("status") or {}
        ref = ModelRef(meta["namespace"], meta["name"])
        if unread := unread_of(obj):
            log.warning("Model '%s' is left as it is, since this release cannot read it: %s", ref, explained(unread))
            return UnreadModel(ref)
        spec = ModelSpec.model_validate(obj["spec"])
        mine = next((one for one in status.get("nodes") or [] if one.get("name") == node_name), None)
        return ModelView(
            ref=ref,
            uid=str(meta.get("uid", "")),
            deleting="deletionTimestamp" in meta,
            spec=spec,
            digest=spec.digest or status.get("digest"),
            entry=None if mine is None else NodeCopy.model_validate(mine),
        )

    return keep


def used_by(pod: Object) -> frozenset[ModelRef] | None:
    """Models whose volume the pod mounts; None when it does not run any more."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return None
    claims = [
        str(volume["persistentVolumeClaim"]["claimName"])
        for volume in pod["spec"].get("volumes") or []
        if volume.get("persistentVolumeClaim")
    ]
    namespace = pod["metadata"]["namespace"]
    return frozenset(ModelRef(namespace, name.removesuffix("-model")) for name in claims if name.endswith("-model"))


def node_labels(node: Object) -> dict[str, Any]:
    """Labels of the node."""
    return dict(node["metadata"].get("labels") or {})


@dataclass(frozen=True)
class Views:
    """The three caches of one node's agent."""

    node_name: str
    models: Informer[ModelView | UnreadModel]
    node: Informer[dict[str, Any]]
    pods: Informer[frozenset[ModelRef]]

    @classmethod
    def following(cls, client: Api, node_name: str) -> Views:
        """Constructed, not started."""
        return cls(
            node_name,
            Informer(client, MODELS, model_view(node_name)),
            Informer(client, NODES, node_labels, field_selector=f"metadata.name={node_name}"),
            Informer(client, PODS, used_by, field_selector=f"spec.nodeName={node_name}", label_selector=LABEL_SERVICE),
        )

    def informers(self) -> dict[str, Informer[Any]]:
        """By name, for health and metrics."""
        return {"models": self.models, "nodes": self.node, "pods": self.pods}

    def readable(self) -> list[ModelView]:
        """All Models but those of another release's rules."""
        return [one for one in self.models.items() if isinstance(one, ModelView)]

    def knows_node(self) -> bool:
        """A node may be deleted and come back within seconds; its disk does not go with its object."""
        return self.node.get(None, self.node_name) is not None

    def wanted(self) -> dict[ModelRef, ModelView]:
        """Models that this node should have a copy of."""
        labels = self.node.get(None, self.node_name) or {}
        return {
            one.ref: one
            for one in self.readable()
            if not one.deleting and claim_of(one.spec.source) is None and admits(one.spec, labels)
        }

    def used(self) -> set[ModelRef]:
        """Models whose copies are not to be touched: pods of this node have mounted them or wait for them, or nobody
        here knows what they say."""
        unread = {one.ref for one in self.models.items() if isinstance(one, UnreadModel)}
        return unread | {ref for refs in self.pods.items() for ref in refs}
