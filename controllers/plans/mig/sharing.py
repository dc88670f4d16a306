"""GPUs that the device plugin shares without MIG: what a node offers, where a worker may run, who gets a share. Pure.

The plugin is configured by a person (`sharing.mps` or `sharing.timeSlicing`, with `renameByDefault`); nothing here
changes it, and such GPUs are never cut. Shares are told apart by strategy and by memory only: the GPU's, divided by
those who share it. MPS holds its clients to that; under time slicing nobody does but the worker itself
(`--gpu-memory-bytes`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from crds.inference_service import Accelerator, SharedGPU, SharingStrategy

SHARED_RESOURCE: Final = "nvidia.com/gpu.shared"
LABEL_SHARING: Final = "nvidia.com/gpu.sharing-strategy"
LABEL_REPLICAS: Final = "nvidia.com/gpu.replicas"
LABEL_MEMORY: Final = "nvidia.com/gpu.memory"
"""MiB of one GPU, whole."""
MOST_REPLICAS: Final = 16
"""Of one GPU: with more to share it, a node is not used."""
_MIB: Final = 1 << 20
_LABELS: Final = {SharingStrategy.TIME_SLICING: "time-slicing", SharingStrategy.MPS: "mps"}
_BY_LABEL: Final = {label: strategy for strategy, label in _LABELS.items()}
_WEAK: Final = {
    SharingStrategy.MPS: (
        "MPS",
        "Its workers share GPUs by MPS: memory and threads of each are limited, but a GPU fault of one client ends all "
        "on that GPU, and caches and bandwidth are not divided. For isolation use accelerator.mig.",
    ),
    SharingStrategy.TIME_SLICING: (
        "TimeSlicing",
        "Its workers share GPUs by time slicing: nothing but the worker's own limit keeps its memory to itself, and "
        "latency depends on what the others do. For isolation use accelerator.mig, or mps for limits of memory.",
    ),
}


@dataclass(frozen=True, slots=True, order=True)
class Share:
    """One kind of share."""

    strategy: SharingStrategy
    replicas: int
    """That share one GPU."""
    bytes: int
    """Of memory."""

    @property
    def gigabytes(self) -> int:
        """Whole ones."""
        return self.bytes // 10**9

    def holds(self, strategy: SharingStrategy, gigabytes: int) -> bool:
        """Whether a worker that asks for so much may run here: the same question that `sharing_terms` asks."""
        return self.strategy is strategy and self.bytes >= gigabytes * 10**9


def is_shared(labels: Mapping[str, str]) -> bool:
    """Whether the device plugin of this node says that it shares GPUs."""
    return labels.get(LABEL_SHARING, "none") != "none"


def share_of(labels: Mapping[str, str], resources: Mapping[str, str]) -> tuple[Share | None, str]:
    """What a node with `is_shared` offers; else None and why its GPUs cannot be used, without the node's name."""
    strategy = _BY_LABEL.get(labels[LABEL_SHARING])
    if strategy is None:
        return None, f"has {LABEL_SHARING}={labels[LABEL_SHARING]}; known are {', '.join(sorted(_BY_LABEL))}"
    if resources.get("nvidia.com/gpu", "0") != "0":
        return None, (
            f"shares GPUs and shows the shares as nvidia.com/gpu: a pod could get either. Set renameByDefault: true in "
            f"the device plugin's configuration of {labels[LABEL_SHARING]}"
        )
    found = labels.get(LABEL_REPLICAS, ""), labels.get(LABEL_MEMORY, "")
    if not all(text.isdecimal() for text in found):
        return (
            None,
            f"shares GPUs and has no numbers in {LABEL_REPLICAS} and {LABEL_MEMORY}; GPU feature discovery does",
        )
    replicas, mib = map(int, found)
    if not 2 <= replicas <= MOST_REPLICAS:
        return None, f"shares each GPU between {replicas}; allowed are 2 to {MOST_REPLICAS}"
    return Share(strategy, replicas, mib * _MIB // replicas), ""


def sharing_terms(wanted: SharedGPU) -> list[dict[str, Any]]:
    """Node selector terms of a worker: of each number that may share a GPU, how large the GPU must be for it."""
    label = _LABELS[wanted.strategy]
    return [
        {
            "matchExpressions": [
                {"key": LABEL_SHARING, "operator": "In", "values": [label]},
                {"key": LABEL_REPLICAS, "operator": "In", "values": [str(replicas)]},
                {"key": LABEL_MEMORY, "operator": "Gt", "values": [str(_least_mib(replicas, wanted.gigabytes) - 1)]},
            ]
        }
        for replicas in range(2, MOST_REPLICAS + 1)
    ]


def _least_mib(replicas: int, gigabytes: int) -> int:
    return -(-replicas * gigabytes * 10**9 // _MIB)


def weak_isolation(accelerator: Accelerator) -> tuple[str, str] | None:
    """Reason and message of the condition; None where workers do not share GPUs in this way."""
    return _WEAK[accelerator.shared.strategy] if accelerator.shared else None


@dataclass(frozen=True, slots=True)
class ShareWant:
    """One service: `replicas` workers, each on one share."""

    service: str
    strategy: SharingStrategy
    gigabytes: int
    replicas: int
    priority: int = 3
    turn: float = 0.0
    """Of its Tenant: of those that want as much, the lowest is served first."""

    @property
    def text(self) -> str:
        """`mps 20gb`."""
        return f"{self.strategy} {self.gigabytes}gb"


@dataclass(frozen=True, slots=True)
class ShareServed:
    """Of one service."""

    want: ShareWant
    replicas: int

    @property
    def missing(self) -> int:
        return self.want.replicas - self.replicas


def serve_shares(wants: Sequence[ShareWant], offered: Mapping[Share, int]) -> tuple[ShareServed, ...]:
    """Who gets a share: important services first, each worker on the smallest share that holds it.

    Sizes are nested (what fits a small share fits a larger one), so no other order serves more of a class.
    """
    left = Counter(dict(offered))
    served = []
    for want in sorted(wants, key=lambda one: (one.priority, -one.gigabytes, one.turn)):
        missing = want.replicas
        for share in sorted(left, key=lambda one: one.bytes):
            if share.holds(want.strategy, want.gigabytes):
                taken = min(missing, left[share])
                left[share] -= taken
                missing -= taken
        served.append(ShareServed(want, want.replicas - missing))
    return tuple(served)


def offers_text(offered: Mapping[Share, int]) -> str:
    """`8×20gb mps + 4×10gb timeSlicing`; the largest first."""
    counts: Counter[tuple[int, str]] = Counter()
    for share, count in offered.items():
        counts[share.gigabytes, share.strategy] += count
    return " + ".join(f"{n}×{size}gb {strategy}" for (size, strategy), n in sorted(counts.items(), reverse=True) if n)
