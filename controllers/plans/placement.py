"""Where Kubernetes' scheduler should put the workers of a revision: apart, and near their GPUs' own wires. Pure.

Only wishes and node labels; nobody here picks a node. Which GPUs of a node a worker gets, and that they hang on one
NUMA node or PCIe switch, is decided by kubelet's topology manager and the device plugin.
"""

from __future__ import annotations

from typing import Any, Final

from controllers.plans.mig.geometry import LABEL_COUNT
from controllers.plans.mig.sharing import sharing_terms
from crds.contract import LABEL_REVISION, LABEL_SERVICE
from crds.inference_service import Accelerator, Placement, ZoneSpread

HOST: Final = "kubernetes.io/hostname"
ZONE: Final = "topology.kubernetes.io/zone"
LABEL_CLIQUE: Final = "nvidia.com/gpu.clique"
"""On nodes whose GPUs are joined by an NVLink fabric, from GPU feature discovery."""
Manifest = dict[str, Any]


def spread(service: str, placement: Placement) -> list[Manifest]:
    """Over hosts as far as it goes, and over zones where that is required. Each revision by itself: those of the one
    before say nothing of the next."""
    hosts = _evenly(service, HOST, "ScheduleAnyway")
    return [_evenly(service, ZONE, "DoNotSchedule"), hosts] if _zones_required(placement) else [hosts]


def _evenly(service: str, key: str, otherwise: str) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": otherwise,
        "labelSelector": _workers(service),
        "matchLabelKeys": [LABEL_REVISION],
    }


def _workers(service: str) -> Manifest:
    return {"matchLabels": {LABEL_SERVICE: service}}


def _zones_required(placement: Placement) -> bool:
    return placement.zones is ZoneSpread.REQUIRED


def affinity(service: str, placement: Placement, accelerator: Accelerator) -> Manifest:
    """Away from each other's zones, and to the nodes that suit the accelerator.

    Zones that are only preferred are no spread constraint: a soft one more, whose label a node lacks (a cluster without
    zones), takes that node out of the score of all of them, and hosts would not count any more.
    """
    made: Manifest = {}
    if found := node_affinity(accelerator):
        made["nodeAffinity"] = found
    if not _zones_required(placement):
        # Of all revisions: Kubernetes 1.30 has no matchLabelKeys here.
        term = {"topologyKey": ZONE, "labelSelector": _workers(service)}
        weighed = [{"weight": 100, "podAffinityTerm": term}]
        made["podAntiAffinity"] = {"preferredDuringSchedulingIgnoredDuringExecution": weighed}
    return made


def node_affinity(accelerator: Accelerator) -> Manifest:
    """Nodes that shares need; for several GPUs those whose GPUs are wired to each other, or that they fill."""
    if accelerator.shared:
        return _required(sharing_terms(accelerator.shared))
    if accelerator.gpu is None or accelerator.gpu.count == 1:
        return {}
    wired = {"key": LABEL_CLIQUE, "operator": "Exists"}
    filled = {"key": LABEL_COUNT, "operator": "In", "values": [str(accelerator.gpu.count)]}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [_preferred(wired, 100), _preferred(filled, 50)]}


def _required(terms: list[Manifest]) -> Manifest:
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def _preferred(expression: Manifest, weight: int) -> Manifest:
    return {"weight": weight, "preference": {"matchExpressions": [expression]}}
