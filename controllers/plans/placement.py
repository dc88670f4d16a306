"""Where Kubernetes' scheduler should put the workers of a revision: apart, and near their GPUs' own wires. Pure.

Only wishes and node labels; nobody here picks a node. Which GPUs of a node a worker gets, and that they hang on one
NUMA node or PCIe switch, is decided by kubelet's topology manager and the device plugin.
"""

from __future__ import annotations

from typing import Any, Final

from controllers.plans.mig.geometry import LABEL_COUNT
from controllers.plans.mig.sharing import sharing_terms
from crds.contract import LABEL_REVISION, LABEL_SERVICE, LABEL_TOPOLOGY_MANAGER
from crds.inference_service import Accelerator, Placement, ZoneSpread

HOST: Final = "kubernetes.io/hostname"
ZONE: Final = "topology.kubernetes.io/zone"
LABEL_CLIQUE: Final = "nvidia.com/gpu.clique"
"""On nodes whose GPUs are joined by an NVLink fabric, from GPU feature discovery."""
LABEL_NUMA: Final = "feature.node.kubernetes.io/memory-numa"
"""On nodes of several NUMA nodes, from node feature discovery; it says neither how many nor which GPU is at which."""
LABEL_DISCOVERED: Final = "feature.node.kubernetes.io/kernel-version.major"
"""On every node that node feature discovery has looked at."""
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
    """Nodes that shares need; for several GPUs those whose GPUs are wired to each other, that they fill, or where they
    come from one NUMA node."""
    if accelerator.shared:
        return _required(sharing_terms(accelerator.shared))
    if accelerator.gpu is None or accelerator.gpu.count == 1:
        return {}
    wired = {"key": LABEL_CLIQUE, "operator": "Exists"}
    filled = {"key": LABEL_COUNT, "operator": "In", "values": [str(accelerator.gpu.count)]}
    weighed = [_preferred([wired], 100), _preferred([filled], 50), *_within_one_numa_node(accelerator.gpu.count)]
    return {"preferredDuringSchedulingIgnoredDuringExecution": weighed}


def _within_one_numa_node(gpus: int) -> list[Manifest]:
    """Nodes with one NUMA node only, and nodes whose kubelet takes the GPUs of one worker from one where it can."""
    whole = [{"key": LABEL_DISCOVERED, "operator": "Exists"}, {"key": LABEL_NUMA, "operator": "DoesNotExist"}]
    aligned = {"key": LABEL_TOPOLOGY_MANAGER, "operator": "In", "values": ["best-effort", "restricted"]}
    # This policy turns a pod away that one NUMA node cannot hold, again and again: only where two halves would.
    single = {"key": LABEL_TOPOLOGY_MANAGER, "operator": "In", "values": ["single-numa-node"]}
    roomy = {"key": LABEL_COUNT, "operator": "Gt", "values": [str(2 * gpus - 1)]}
    return [_preferred(whole, 30), _preferred([aligned], 30), _preferred([single, roomy], 30)]


def _required(terms: list[Manifest]) -> Manifest:
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def _preferred(expressions: list[Manifest], weight: int) -> Manifest:
    return {"weight": weight, "preference": {"matchExpressions": expressions}}
