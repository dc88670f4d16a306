"""Pools whose devices are given by ResourceClaims: what nodes publish and who holds it, as the scheduler sees it. Pure.

ResourceSlices say what there is, ResourceClaims what is taken: the same two that kube-scheduler decides by, so the plan
never counts on a device that a pod could not get. What the device plugin says of such a node counts for nothing, and a
node that offers its devices in both ways is not used: one device could be given twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from controllers.plans.mig.claims import CLASS_GPU, CLASS_MIG, DRIVER, NO_API
from controllers.plans.mig.geometry import WHOLE_GPU, is_profile
from controllers.plans.mig.layouts import Layout, layout
from controllers.plans.mig.records import GpuPod, NodeView


@dataclass(frozen=True, slots=True)
class SliceView:
    """One ResourceSlice of NVIDIA's driver: some of the devices of one node."""

    node: str
    pool: str
    """Of ResourceSlices; the driver gives it the node's name."""
    generation: int
    parts: int
    """Slices that make up the pool in this generation."""
    profiles: Mapping[str, str]
    """Of the devices that a pod could get, by device name; `gpu` for whole ones."""
    dynamic: bool = False
    """Its devices are cut when a claim is allocated: not what a pool's plan can count."""

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> SliceView | None:
        """None for slices of other drivers, and of no single node."""
        spec = obj["spec"]
        if spec.get("driver") != DRIVER or not spec.get("nodeName"):
            return None
        devices = spec.get("devices") or ()
        return cls(
            node=spec["nodeName"],
            pool=spec["pool"]["name"],
            generation=int(spec["pool"]["generation"]),
            parts=int(spec["pool"]["resourceSliceCount"]),
            profiles={one["name"]: kind for one in devices if (kind := _kind(one)) is not None},
            dynamic=bool(spec.get("sharedCounters")) or any(one.get("consumesCounters") for one in devices),
        )


def _kind(device: Mapping[str, Any]) -> str | None:
    """The profile of a slice, or `gpu`; None for what no worker could use."""
    if any(one.get("effect") in ("NoSchedule", "NoExecute") for one in device.get("taints") or ()):
        return None
    attributes = device.get("attributes") or {}
    kind, profile = (_text(attributes, name) for name in ("type", "profile"))
    if kind == "mig" and profile is not None and is_profile(profile):
        return profile
    return WHOLE_GPU if kind == "gpu" else None


def _text(attributes: Mapping[str, Any], name: str) -> str | None:
    """Attributes may be written with the driver's domain or without it."""
    found = attributes.get(name) or attributes.get(f"{DRIVER}/{name}") or {}
    text: str | None = found.get("string")
    return text


@dataclass(frozen=True, slots=True)
class ClaimView:
    """One ResourceClaim that holds devices of NVIDIA's driver."""

    namespace: str
    name: str
    devices: tuple[tuple[str, str], ...]
    """Pool and name of each."""
    pods: tuple[tuple[str, str], ...]
    """Name and uid of each pod that may use it."""

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> ClaimView | None:
        """None for a claim that was given nothing of ours."""
        status = obj.get("status") or {}
        results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
        devices = tuple((one["pool"], one["device"]) for one in results if one["driver"] == DRIVER)
        if not devices:
            return None
        pods = tuple((one["name"], one["uid"]) for one in status.get("reservedFor") or () if one["resource"] == "pods")
        return cls(obj["metadata"]["namespace"], obj["metadata"]["name"], devices, pods)


@dataclass(frozen=True, slots=True)
class Published:
    """What the ResourceSlices of one node say together."""

    node: str
    profiles: Mapping[str, str]
    """By device name; empty while slices of the newest generation are missing, when the scheduler uses none either."""
    dynamic: bool

    @property
    def layout(self) -> Layout:
        """Devices by profile."""
        return layout(Counter(self.profiles.values()))


def published(slices: Iterable[SliceView]) -> dict[str, Published]:
    """By pool."""
    by_pool: dict[str, list[SliceView]] = {}
    for one in slices:
        by_pool.setdefault(one.pool, []).append(one)
    return {pool: _together(parts) for pool, parts in by_pool.items()}


def _together(parts: Sequence[SliceView]) -> Published:
    newest = max(one.generation for one in parts)
    current = [one for one in parts if one.generation == newest]
    complete = len(current) == current[0].parts
    profiles = {name: kind for one in current for name, kind in one.profiles.items()} if complete else {}
    return Published(current[0].node, profiles, any(one.dynamic for one in current))


def with_devices(node: NodeView, by_pool: Mapping[str, Published]) -> NodeView:
    """The node as its ResourceSlices say it is."""
    mine = [one for one in by_pool.values() if one.node == node.name]
    profiles: Counter[str] = sum((Counter(dict(one.layout)) for one in mine), Counter())
    problem = node.problem or (_problem(node, mine) if node.record is None else None)
    return replace(node, now=layout(profiles), problem=problem)


def _problem(node: NodeView, mine: Sequence[Published]) -> str | None:
    """While a node is cut anew its slices may come and go; the repartition has a timeout of its own."""
    if node.now:
        return (
            f"Node '{node.name}' offers its GPUs by the device plugin, but its pool gives them by ResourceClaims: one"
            " device could be given twice. Label it nvidia.com/gpu.deploy.device-plugin=false."
        )
    if not mine:
        return (
            f"Node '{node.name}' has no ResourceSlice of driver {DRIVER}. Install NVIDIA's DRA driver for GPUs with"
            " resources.gpus.enabled=true, or set spec.allocation to devicePlugin."
        )
    if any(one.dynamic for one in mine):
        return (
            f"Node '{node.name}' publishes GPUs that are cut when a claim is allocated (DynamicMIG): they cannot be cut"
            " by plan. Turn this feature gate of NVIDIA's DRA driver off."
        )
    return None


def holders(
    claims: Iterable[ClaimView], pods: Iterable[GpuPod], by_pool: Mapping[str, Published]
) -> tuple[GpuPod, ...]:
    """Everybody who holds devices, on the node where these are. Of a shared claim the first pod has the slices."""
    known = {pod.uid: pod for pod in pods}
    held: dict[tuple[str, str], GpuPod] = {}
    for claim in sorted(claims, key=lambda one: (one.namespace, one.name)):
        pool = claim.devices[0][0]
        found = by_pool.get(pool)
        profiles = found.profiles if found else {}
        slices = Counter(profiles[name] for _, name in claim.devices if name in profiles)
        for name, uid in claim.pods or (("", ""),):
            pod = known.get(uid) or GpuPod(claim.namespace, name or claim.name, uid, None, (), None)
            # What is not published any more is held all the same.
            node = found.node if found else pool
            key = claim.namespace, uid or claim.name
            slices.update(dict(held[key].slices) if key in held else {})
            what = "Pod" if uid else "ResourceClaim"
            held[key] = replace(pod, node=node, slices=layout(slices), what=what)
            slices = Counter()
    return tuple(sorted(held.values(), key=lambda one: (one.namespace, one.name)))


def missing_api(serves: bool, classes: Collection[str]) -> tuple[str, str] | None:
    """Reason and message where this cluster cannot give devices by claims at all."""
    if not serves:
        return "NoResourceClaims", f"spec.allocation is resourceClaims, but {NO_API}"
    absent = [one for one in (CLASS_GPU, CLASS_MIG) if one not in classes]
    if not absent:
        return None
    return "NoDeviceClass", (
        f"There is no DeviceClass '{absent[0]}', which claims of workers name. NVIDIA's DRA driver for GPUs brings it"
        " (resources.gpus.enabled=true)."
    )


def unpublished(profile: str, nodes: Iterable[NodeView]) -> str:
    """Said of a profile that services wait for: the scheduler finds no such device on any node."""
    there: Counter[str] = sum((Counter(dict(node.now)) for node in nodes), Counter())
    if there[profile]:
        return ""
    names = ", ".join(f"{count}×{name}" for name, count in sorted(there.items())) or "none"
    return f" No ResourceSlice of the pool's nodes publishes profile {profile}; published are {names}."
