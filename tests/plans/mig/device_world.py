"""ResourceSlices as NVIDIA's DRA driver publishes them, and ResourceClaims as kube-scheduler allocates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DRIVER = "gpu.nvidia.com"
API = "resource.k8s.io/v1"


def device(number: int, kind: str) -> dict[str, Any]:
    """One slice of the profile `kind`, or a whole GPU."""
    attributes = {"type": {"string": "gpu" if kind == "gpu" else "mig"}, "uuid": {"string": f"GPU-{number}"}}
    if kind != "gpu":
        attributes["profile"] = {"string": kind}
    return {"name": f"device-{number}", "attributes": attributes}


def resource_slice(
    node: str, kinds: Sequence[str], *, generation: int = 1, part: int = 0, parts: int = 1
) -> dict[str, Any]:
    """Some of the devices of one node."""
    return {
        "apiVersion": API,
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-{generation}-{part}"},
        "spec": {
            "driver": DRIVER,
            "nodeName": node,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": parts},
            "devices": [device(100 * part + number, kind) for number, kind in enumerate(kinds)],
        },
    }


def claim(
    namespace: str, name: str, pool: str, devices: Sequence[int], pods: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """With these devices of one pool, for these pods (name → uid)."""
    results = [{"request": "accelerator", "driver": DRIVER, "pool": pool, "device": f"device-{one}"} for one in devices]
    reserved = [{"resource": "pods", "name": pod, "uid": uid} for pod, uid in (pods or {}).items()]
    return {
        "apiVersion": API,
        "kind": "ResourceClaim",
        "metadata": {"namespace": namespace, "name": name},
        "status": {"allocation": {"devices": {"results": results}}, "reservedFor": reserved},
    }


def device_class(name: str) -> dict[str, Any]:
    """As NVIDIA's chart makes them."""
    kind = name.partition(".")[0]
    expression = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == '{kind}'"
    return {
        "apiVersion": API,
        "kind": "DeviceClass",
        "metadata": {"name": name},
        "spec": {"selectors": [{"cel": {"expression": expression}}]},
    }
