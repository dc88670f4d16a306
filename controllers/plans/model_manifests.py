"""The PersistentVolume and the claim through which workers reach a Model's copy on their node. Pure.

One local volume stands for the same folder on every node; the kubelet retries the mount until the agent has published
the folder there. The size on both is nominal: a local volume does not limit anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from controllers.plans.model_volume import ModelVolume
from crds.contract import API_VERSION, LABEL_MANAGED_BY, LABEL_MODEL, MANAGED_BY

NOMINAL_SIZE: Final = "1Gi"

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Agents:
    """The agents of the nodes, as the chart runs them."""

    root: str
    """Their folder on each node."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels of the nodes that have one; every Linux node when empty."""


def persistent_volume(model: Mapping[str, Any], volume: ModelVolume, agents: Agents) -> Manifest:
    """The scheduler puts a worker only where its volume may be: on a node with an agent. Cluster-scoped, so the Model's
    finalizer removes it, not an owner."""
    namespace, name = model["metadata"]["namespace"], model["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume.volume_name, "labels": _labels(name)},
        "spec": {
            "capacity": {"storage": NOMINAL_SIZE},
            "accessModes": ["ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "volumeMode": "Filesystem",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": namespace,
                "name": volume.claim_name,
            },
            "local": {"path": f"{agents.root.rstrip('/')}/{namespace}/{name}"},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": key, "operator": "In", "values": [value]}
                                for key, value in ({"kubernetes.io/os": "linux"} | dict(agents.node_selector)).items()
                            ]
                        }
                    ]
                }
            },
        },
    }


def persistent_volume_claim(model: Mapping[str, Any], volume: ModelVolume) -> Manifest:
    """Bound to exactly that volume."""
    meta = model["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": volume.claim_name,
            "namespace": meta["namespace"],
            "labels": _labels(meta["name"]),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "Model",
                    "name": meta["name"],
                    "uid": meta["uid"],
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "resources": {"requests": {"storage": NOMINAL_SIZE}},
            "storageClassName": "",
            "volumeMode": "Filesystem",
            "volumeName": volume.volume_name,
        },
    }


def with_its_nodes(wanted: Manifest, observed_volume: Mapping[str, Any] | None) -> Manifest:
    """The wanted volume with the nodes of the existing one, which Kubernetes lets nobody change."""
    nodes = observed_volume and observed_volume["spec"].get("nodeAffinity")
    return {**wanted, "spec": {**wanted["spec"], "nodeAffinity": nodes}} if nodes else wanted


def volume_problem(wanted_volume: Mapping[str, Any], observed_volume: Mapping[str, Any] | None) -> str | None:
    """Why the existing volume can never serve this Model, or None. Both fields are immutable in Kubernetes."""
    if observed_volume is None:
        return None
    name, spec = observed_volume["metadata"]["name"], observed_volume["spec"]
    wanted, found = wanted_volume["spec"], spec.get("claimRef") or {}
    place = (wanted["claimRef"]["namespace"], wanted["claimRef"]["name"])
    if found and (found.get("namespace"), found.get("name")) != place:
        return (
            f"PersistentVolume '{name}' belongs to claim '{found.get('namespace')}/{found.get('name')}';"
            " delete that volume, or give the Model another name."
        )
    path = (spec.get("local") or {}).get("path")
    if path != wanted["local"]["path"]:
        return (
            f"PersistentVolume '{name}' points to '{path}', the node cache is at '{wanted['local']['path']}';"
            " delete the volume when no worker uses it, and it is made anew."
        )
    return None


def is_released(observed_volume: Mapping[str, Any] | None, observed_claim: Mapping[str, Any] | None) -> bool:
    """Whether the volume still holds the uid of a claim that is gone, so that no new claim can bind."""
    if observed_volume is None:
        return False
    bound_uid = (observed_volume["spec"].get("claimRef") or {}).get("uid")
    if bound_uid is None:
        return False
    phase = (observed_volume.get("status") or {}).get("phase")
    return phase == "Released" and (observed_claim is None or observed_claim["metadata"]["uid"] != bound_uid)


def _labels(model_name: str) -> dict[str, str]:
    return {LABEL_MANAGED_BY: MANAGED_BY, LABEL_MODEL: model_name}
