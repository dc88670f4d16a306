"""How a worker asks for its devices where a pool gives them by ResourceClaims, and which services that concerns. Pure.

The names are those of NVIDIA's DRA driver and of its DeviceClasses. A claim asks for what the device plugin's resources
ask for, no more: devices of a profile, whichever the scheduler finds. Shares of GPUs without MIG stay the plugin's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controllers.plans.mig.geometry import MEDIA, WHOLE_GPU
from controllers.plans.mig.offers import GpuNode, allowed_by, matches
from crds.gpu_pool import GPUPoolSpec
from crds.inference_service import Accelerator, Allocation

DRIVER: Final = "gpu.nvidia.com"
"""Of the ResourceSlices, and the domain of their devices' attributes."""
CLASS_GPU: Final = "gpu.nvidia.com"
CLASS_MIG: Final = "mig.nvidia.com"
CLAIM: Final = "accelerator"
"""What the pod calls its claim."""
TEMPLATE_KIND: Final = "ResourceClaimTemplate"
NO_API: Final = (
    "this cluster does not serve resource.k8s.io/v1, which Kubernetes does from 1.34 on. Upgrade it, or set"
    " spec.allocation of the pool to devicePlugin."
)


@dataclass(frozen=True, slots=True)
class Giver:
    """A pool as a service sees it: what its nodes can be cut into, and how that is given."""

    allocation: Allocation
    profiles: frozenset[str]


def givers_of(
    pools: Mapping[str, GPUPoolSpec], nodes: Iterable[GpuNode], selector: Mapping[str, str]
) -> tuple[Giver, ...]:
    """Of the pools with nodes that `selector` matches, by name."""
    found: dict[str, set[str]] = {}
    for node in nodes:
        pool = next((name for name in sorted(pools) if matches(pools[name].node_selector, node.labels)), None)
        if pool is not None and matches(selector, node.labels):
            allowed = allowed_by(pools[pool])
            names = {one.name for one in node.family.profiles if allowed is None or one.name in allowed}
            found.setdefault(pool, {WHOLE_GPU}).update(names)
    return tuple(Giver(pools[name].allocation, frozenset(found[name])) for name in sorted(found))


def profile_of(accelerator: Accelerator) -> str | None:
    """What is asked of pools; None where that is nothing that a claim could ask for."""
    if accelerator.mig is not None and not accelerator.mig.is_auto:
        return accelerator.mig.profile.replace(".me", MEDIA)
    return WHOLE_GPU if accelerator.gpu else None


def allocation_of(accelerator: Accelerator, givers: Sequence[Giver], former: Allocation) -> Allocation:
    """That of the first pool by name which has the profile. Another one is another revision, so what stands stays while
    some pool gives the profile so, and while none has it at all: nodes come and go."""
    profile = profile_of(accelerator)
    if profile is None:
        return former if accelerator.mig else Allocation.DEVICE_PLUGIN
    able = [one.allocation for one in givers if profile in one.profiles]
    return former if former in able or not able else able[0]


def claim_of(accelerator: Accelerator) -> dict[str, Any] | None:
    """The claim of one worker; None where it asks for no devices that claims give."""
    profile = profile_of(accelerator)
    if profile is None:
        return None
    asked: dict[str, Any] = {"deviceClassName": CLASS_GPU, "allocationMode": "ExactCount", "count": 1}
    if accelerator.gpu:
        asked["count"] = accelerator.gpu.count
    else:
        expression = f"device.attributes['{DRIVER}'].profile == '{profile}'"
        asked |= {"deviceClassName": CLASS_MIG, "selectors": [{"cel": {"expression": expression}}]}
    return {"devices": {"requests": [{"name": CLAIM, "exactly": asked}]}}


def template_name(service: str, revision: str) -> str:
    """Of the ResourceClaimTemplate of one revision. Such an object never changes: another claim, another revision."""
    return f"{service}-{revision}"
