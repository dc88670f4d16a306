"""The PersistentVolume and the claim through which workers reach a Model's copy on their node. Pure.

One local volume stands for the same folder on every node; the kubelet retries the mount until the agent has published
the folder there. The size on both is nominal: a local volume does not limit anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from controllers.plans.model_volume import ModelVolume
from crds.contract import API_VERSION, LABEL_MANAGED_BY, LABEL_MODEL, MANAGED_BY

NOMINAL_SIZE: Final = "1Gi"

Manifest = dict[str, Any]


def persistent_volume(model: Mapping[str, Any], volume: ModelVolume, root: str) -> Manifest:
    """`root` is the agents' folder on each node. Cluster-scoped, so the Model's finalizer removes it, not an owner."""
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
            "local": {"path": f"{root.rstrip('/')}/{namespace}/{name}"},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}
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
