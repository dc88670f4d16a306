"""What depends on what, as a graph from causes to consequences, and which part of it an alert is about.

    gateway ─┐
    model ───┼─→ service ←─ revision ←─ worker ←─ GPU ←─ node
             ┘

An edge carries how much of the consequence hangs on the cause: one of four workers carries a quarter of its revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from controllers.plans.alerting.alerts import NAMESPACE, SERVICE, Labels

GATEWAY: Final = "gateway"
MODEL: Final = "model"
NODE: Final = "node"
GPU: Final = "gpu"
WORKER: Final = "worker"
REVISION: Final = "revision"


class Part(NamedTuple):
    """Something that can be broken. Names of namespaced things begin with `namespace/`."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


THE_GATEWAY: Final = Part(GATEWAY, "foretide-gateway")
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Pod:
    """A worker and where it runs."""

    namespace: str
    name: str
    service: str
    revision: str
    node: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """`causes[x]` are the parts that x needs, with their shares from 0 to 1; `consequences` is the same backwards."""

    causes: Mapping[Part, Mapping[Part, float]] = field(default_factory=dict)
    consequences: Mapping[Part, Mapping[Part, float]] = field(default_factory=dict)

    def upstream(self, part: Part) -> dict[Part, float]:
        """All that could have broken it, itself included, with how much of it hangs on each."""
        return _reach(self.causes, part)

    def downstream(self, part: Part) -> dict[Part, float]:
        """All that breaks with it, itself included."""
        return _reach(self.consequences, part)


def _reach(edges: Mapping[Part, Mapping[Part, float]], start: Part) -> dict[Part, float]:
    """Along every path the shares multiply; several paths add up as independent chances do. The graph has no cycles."""
    found = {start: 1.0}
    layer = {start: 1.0}
    while layer:
        following: dict[Part, float] = {}
        for part, share in layer.items():
            for other, weight in edges.get(part, {}).items():
                following[other] = 1.0 - (1.0 - following.get(other, 0.0)) * (1.0 - share * weight)
        for part, share in following.items():
            found[part] = 1.0 - (1.0 - found.get(part, 0.0)) * (1.0 - share)
        layer = following
    return found


def build(services: Mapping[str, str | None], pods: Iterable[Pod], gpus: Mapping[str, Part] | None = None) -> Topology:
    """`services` are `namespace/name` → name of the Model; `gpus` are `namespace/pod` → its GPU, where known."""
    causes: dict[Part, dict[Part, float]] = {}
    by_revision: dict[Part, list[Pod]] = {}
    of_service: dict[Part, dict[Part, int]] = {}
    for pod in pods:
        service = Part(SERVICE, f"{pod.namespace}/{pod.service}")
        revision = Part(REVISION, f"{service.name}/{pod.revision}")
        by_revision.setdefault(revision, []).append(pod)
        held = of_service.setdefault(service, {})
        held[revision] = held.get(revision, 0) + 1
        causes[Part(WORKER, f"{pod.namespace}/{pod.name}")] = _under(pod, gpus or {}, causes)
    for revision, workers in by_revision.items():
        causes[revision] = {Part(WORKER, f"{one.namespace}/{one.name}"): 1.0 / len(workers) for one in workers}
    for place, model in services.items():
        service = Part(SERVICE, place)
        total = sum(of_service.get(service, {}).values())
        causes[service] = {revision: n / total for revision, n in of_service.get(service, {}).items()}
        causes[service][THE_GATEWAY] = 1.0
        if model:
            causes[service][Part(MODEL, f"{place.partition('/')[0]}/{model}")] = 1.0
    return Topology(causes, _turned(causes))


def _under(pod: Pod, gpus: Mapping[str, Part], causes: dict[Part, dict[Part, float]]) -> dict[Part, float]:
    if pod.node is None:
        return {}
    node, gpu = Part(NODE, pod.node), gpus.get(f"{pod.namespace}/{pod.name}")
    if gpu is None:
        return {node: 1.0}
    causes[gpu] = {node: 1.0}
    return {gpu: 1.0}


def _turned(causes: Mapping[Part, Mapping[Part, float]]) -> dict[Part, dict[Part, float]]:
    turned: dict[Part, dict[Part, float]] = {}
    for part, needs in causes.items():
        for other, share in needs.items():
            turned.setdefault(other, {})[part] = share
    return turned


# --- which part an alert is about -----------------------------------------------------------------------------------
def part_of(labels: Labels) -> Part:
    """The narrowest part that the labels name. Of labels that name none: a part of its own that nothing hangs on."""
    return next(_parts(labels))


def _parts(labels: Labels) -> Iterator[Part]:
    namespace, node = labels.get(NAMESPACE, ""), labels.get("node") or labels.get("Hostname")
    gpu = labels.get("gpu") or labels.get("UUID")
    if gpu and node:
        yield Part(GPU, f"{node}/{gpu}")
    if namespace and labels.get("pod"):
        yield Part(WORKER, f"{namespace}/{labels['pod']}")
    if namespace and labels.get(SERVICE) and labels.get("revision"):
        yield Part(REVISION, f"{namespace}/{labels[SERVICE]}/{labels['revision']}")
    if namespace and labels.get(SERVICE):
        yield Part(SERVICE, f"{namespace}/{labels[SERVICE]}")
    if namespace and labels.get("model"):
        yield Part(MODEL, f"{namespace}/{labels['model']}")
    if node:
        yield Part(NODE, node)
    if labels.get("component") == GATEWAY or labels.get("job", "").endswith("foretide-gateway"):
        yield THE_GATEWAY
    text = ",".join(f"{name}={labels[name]}" for name in sorted(labels) if name != "severity")
    yield Part(UNKNOWN, text[:250])


def gpus_of(alerts: Iterable[Labels]) -> dict[str, Part]:
    """Exporters name the pod that holds a GPU: what no cache of ours knows."""
    found = {}
    for labels in alerts:
        part = part_of(labels)
        if part.kind == GPU and labels.get(NAMESPACE) and labels.get("pod"):
            found[f"{labels[NAMESPACE]}/{labels['pod']}"] = part
    return found


class Reach:
    """Of one topology, with the answers remembered: a storm asks the same questions thousands of times."""

    def __init__(self, topology: Topology) -> None:
        self.upstream = lru_cache(maxsize=None)(topology.upstream)
        self.downstream = lru_cache(maxsize=None)(topology.downstream)
