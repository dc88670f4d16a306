"""How each GPU family can be cut: its MIG profiles and the places where each may start. Data, and its reading.

A new family is one more line. A GPU that is not listed is read from its node: the GPU agent writes what the driver
says (`ANNOTATION_GEOMETRY`). Nothing is guessed: a GPU that is neither listed nor described cannot be partitioned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from crds.contract import ANNOTATION_MIG_GEOMETRY

WHOLE_GPU: Final = "gpu"
"""Stands beside profile names for a GPU that is not cut at all: MIG is off and the GPU is one `nvidia.com/gpu`."""
MEDIA: Final = "+me"
LABEL_PRODUCT: Final = "nvidia.com/gpu.product"
LABEL_COUNT: Final = "nvidia.com/gpu.count"
_NAME = re.compile(r"^([1-7])g\.([1-9][0-9]{0,2})gb(\+me)?$")


class UnknownGpu(Exception):
    """The GPU of a node is neither listed here nor described by the node."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One way to cut a slice: how much it takes, and at which memory slices it may start."""

    name: str
    """As NVIDIA writes it: `1g.10gb`, `1g.10gb+me`."""
    compute: int
    memory: int
    """In memory slices of the GPU, not in GB."""
    starts: tuple[int, ...]

    @property
    def media(self) -> bool:
        """Has the media engines, of which a GPU has one set to give away."""
        return self.name.endswith(MEDIA)

    @property
    def gigabytes(self) -> int:
        """Memory as the name says it."""
        match = _NAME.match(self.name)
        assert match, f"{self.name} was checked when it was read"
        return int(match[2])


@dataclass(frozen=True, slots=True)
class Family:
    """GPUs that can be cut in the same ways."""

    name: str
    compute: int
    memory: int
    profiles: tuple[Profile, ...]

    def profile(self, name: str) -> Profile | None:
        """The profile of that name, if this family has it."""
        return next((one for one in self.profiles if one.name == name), None)

    @property
    def gigabytes(self) -> int:
        """Of the whole GPU, as its largest profile says it."""
        return max(one.gigabytes for one in self.profiles)


def _seven(name: str, single: int, double: int, half: int, whole: int) -> Family:
    """The geometry of A100 and later: 7 compute slices over 8 memory slices."""
    profiles = (
        Profile(f"1g.{single}gb", 1, 1, (0, 1, 2, 3, 4, 5, 6)),
        Profile(f"1g.{single}gb{MEDIA}", 1, 1, (0, 1, 2, 3, 4, 5, 6)),
        Profile(f"1g.{double}gb", 1, 2, (0, 2, 4, 6)),
        Profile(f"2g.{double}gb", 2, 2, (0, 2, 4)),
        Profile(f"3g.{half}gb", 3, 4, (0, 4)),
        Profile(f"4g.{half}gb", 4, 4, (0,)),
        Profile(f"7g.{whole}gb", 7, 8, (0,)),
    )
    return Family(name, 7, 8, profiles)


FAMILIES: Final[tuple[Family, ...]] = (
    Family(
        "A30",
        4,
        4,
        (Profile("1g.6gb", 1, 1, (0, 1, 2, 3)), Profile("2g.12gb", 2, 2, (0, 2)), Profile("4g.24gb", 4, 4, (0,))),
    ),
    _seven("A100-40", 5, 10, 20, 40),
    _seven("A100-80", 10, 20, 40, 80),
    _seven("H100-80", 10, 20, 40, 80),
    _seven("H200-141", 18, 35, 71, 141),
    _seven("B200-180", 23, 45, 90, 180),
)
_BY_NAME: Final = {one.name: one for one in FAMILIES}

_PRODUCTS: Final = (
    (r"\bA30\b", "A30"),
    (r"\bA100\b.*\b40GB\b", "A100-40"),
    (r"\bA100\b.*\b80GB\b", "A100-80"),
    (r"\bH100\b.*\b80GB\b", "H100-80"),
    (r"\bH100-PCIe\b", "H100-80"),
    (r"\bH200\b", "H200-141"),
    (r"\bB200\b", "B200-180"),
)
"""What `nvidia.com/gpu.product` says of each family: `NVIDIA-H100-80GB-HBM3`, `NVIDIA-A100-SXM4-40GB`."""


def family(name: str) -> Family:
    """A listed family. Raises UnknownGpu."""
    found = _BY_NAME.get(name)
    if found is None:
        raise UnknownGpu(f"GPU family '{name}' is not known; known are {', '.join(_BY_NAME)}.")
    return found


def family_of(node: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Family:
    """The family of a node's GPUs: as the GPU agent read it from the driver, else by the product's name.

    Raises:
        UnknownGpu: neither says it; or the annotation cannot be read.
    """
    described = annotations.get(ANNOTATION_MIG_GEOMETRY)
    product = labels.get(LABEL_PRODUCT, "")
    if described:
        return read_family(product or node, described)
    # GPU Operator appends -MIG-… under strategy single, and -SHARED under time slicing.
    plain = re.sub(r"-(MIG-.*|SHARED)$", "", product)
    for pattern, name in _PRODUCTS:
        if re.search(pattern, plain):
            return _BY_NAME[name]
    raise UnknownGpu(
        f"Node '{node}' has GPUs of product '{product or 'unknown'}', whose MIG geometry is not known. Let the node"
        f" agent run there, which writes it into the annotation {ANNOTATION_MIG_GEOMETRY}, or take the node out of the"
        " pool."
    )


def read_family(name: str, text: str) -> Family:
    """From the annotation: `7/8;1g.10gb:1:1:0,1,2;3g.40gb:3:4:0,4` (compute/memory slices, then each profile).

    Raises:
        UnknownGpu: the text is not of that form; says which part.
    """
    head, *rest = text.split(";")
    match = re.fullmatch(r"([1-9][0-9]?)/([1-9][0-9]?)", head)
    if not match or not rest:
        raise UnknownGpu(
            f"MIG geometry of '{name}' begins with {head[:40]!r}; allowed: 7/8;PROFILE:compute:memory:starts."
        )
    compute, memory = int(match[1]), int(match[2])
    return Family(name, compute, memory, tuple(_read_profile(name, part, compute, memory) for part in rest))


def _read_profile(family_name: str, part: str, compute: int, memory: int) -> Profile:
    fields = re.fullmatch(r"([^:]+):([1-9][0-9]?):([1-9][0-9]?):([0-9]{1,2}(?:,[0-9]{1,2})*)", part)
    if fields is None or not _NAME.match(fields[1]):
        raise UnknownGpu(f"MIG geometry of '{family_name}' holds {part[:40]!r}; allowed: 1g.10gb:1:1:0,1,2.")
    profile = Profile(
        fields[1], int(fields[2]), int(fields[3]), tuple(sorted({int(one) for one in fields[4].split(",")}))
    )
    if profile.compute > compute or profile.starts[-1] + profile.memory > memory:
        raise UnknownGpu(
            f"MIG geometry of '{family_name}': {part[:40]!r} is larger than the GPU ({compute}/{memory} slices)."
        )
    return profile


def write_family(one: Family) -> str:
    """The annotation's text: what `read_family` reads."""
    parts = (f"{p.name}:{p.compute}:{p.memory}:{','.join(map(str, p.starts))}" for p in one.profiles)
    return ";".join((f"{one.compute}/{one.memory}", *parts))


def resource_name(profile: str) -> str:
    """What pods ask for: `nvidia.com/mig-1g.10gb.me`, `nvidia.com/gpu`."""
    return "nvidia.com/gpu" if profile == WHOLE_GPU else f"nvidia.com/mig-{profile.replace(MEDIA, '.me')}"


def is_profile(name: str) -> bool:
    """Whether it is written as NVIDIA writes profiles of slices."""
    return _NAME.match(name) is not None


def profile_of_resource(resource: str) -> str | None:
    """The other way round; None for what is no GPU."""
    if resource == "nvidia.com/gpu":
        return WHOLE_GPU
    name = resource.removeprefix("nvidia.com/mig-").replace(".me", MEDIA)
    return name if resource.startswith("nvidia.com/mig-") and _NAME.match(name) else None
