"""What a person declares for the run on fake nodes, and whether every pod lies where the plan has a slice. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from crds import contract
from kube.resources import Object

NAMESPACE: Final = "demo"
SYSTEM: Final = "foretide-system"
MIX: Final = {"1g.10gb": 0.45, "2g.20gb": 0.25, "3g.40gb": 0.15, "7g.80gb": 0.05, "gpu": 0.10}
"""Of the workers of a pool: how many are on which slices."""
POOLS: Final = {"plugin": "devicePlugin", "claims": "resourceClaims"}


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a run is."""

    nodes: int = 200
    """Half of them in each pool."""
    gpus: int = 8
    workers: int = 480
    quiet_s: float = 15.0
    limit_s: float = 1500.0

    def nodes_of(self, pool: str) -> list[str]:
        """Their names."""
        return [f"{pool}-{at:04}" for at in range(self.nodes // len(POOLS))]

    def services(self) -> Iterator[tuple[str, str, str, int]]:
        """Pool, name, profile and workers of each."""
        for pool in POOLS:
            for profile, share in MIX.items():
                count = max(1, round(share * self.workers / len(POOLS)))
                yield pool, f"{pool}-{profile.replace('.', '-')}", profile, count

    @property
    def replicas(self) -> int:
        """Of all services."""
        return sum(count for *_, count in self.services())


def declarations(scale: Scale) -> Iterator[Object]:
    """Tenant, Model, pools and services."""
    yield _ours("Tenant", "team", {"namespaces": [NAMESPACE]}, None)
    digest = f"sha256:{'5a' * 32}"
    model = {"source": "pvc://weights/model.gguf", "digest": digest, "format": "gguf"}
    yield _ours("Model", "m", model, NAMESPACE)
    for pool, allocation in POOLS.items():
        repartition = {"maxPercentAtOnce": 100}
        spec = {"nodeSelector": {"pool": pool}, "allocation": allocation, "repartition": repartition}
        yield _ours("GPUPool", pool, spec, None)
    for pool, name, profile, count in scale.services():
        on = {"gpu": {"count": 1}} if profile == "gpu" else {"mig": {"profile": profile}}
        fields = {"model": "m", "accelerator": on, "replicas": count, "nodeSelector": {"pool": pool}}
        yield _ours("InferenceService", name, fields, NAMESPACE)


def _ours(kind: str, name: str, spec: Object, namespace: str | None) -> Object:
    meta = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": contract.API_VERSION, "kind": kind, "metadata": meta, "spec": spec}


def misplaced(
    scale: Scale, nodes: Iterable[Object], pods: Sequence[Object], slices: Iterable[Object], claims: Iterable[Object]
) -> list[str]:
    """What is not as it was planned, as sentences: a worker too few, on another pool, or without a slice of its own."""
    wanted = {name: (pool, profile, count) for pool, name, profile, count in scale.services()}
    there = Counter(pod["metadata"]["labels"][contract.LABEL_SERVICE] for pod in pods)
    wrong = [
        f"{name} has {there[name]} of {count} workers" for name, (_, _, count) in wanted.items() if there[name] != count
    ]
    given = {
        (one["spec"]["nodeName"], each["name"]): each["attributes"].get("profile", {"string": "gpu"})["string"]
        for one in slices
        for each in one["spec"]["devices"]
    }
    by_pod = {
        each["uid"]: one
        for one in claims
        for each in ((one.get("status") or {}).get("reservedFor") or ())
        if each["resource"] == "pods"
    }
    offered = {one["metadata"]["name"]: one["status"]["allocatable"] for one in nodes}
    used: Counter[tuple[str, str]] = Counter()
    for pod in pods:
        name, node = pod["metadata"]["name"], pod["spec"].get("nodeName", "")
        pool, profile, _ = wanted[pod["metadata"]["labels"][contract.LABEL_SERVICE]]
        if not node.startswith(f"{pool}-"):
            wrong.append(f"{name} is on '{node}', which is not in pool {pool}")
        elif POOLS[pool] == "resourceClaims":
            wrong += _held(name, node, profile, by_pod.get(pod["metadata"]["uid"]), given, used)
        else:
            used[node, _resource(profile)] += 1
            if used[node, _resource(profile)] > int(offered[node].get(_resource(profile), "0")):
                wrong.append(f"{name} is on {node}, which has no {profile} for it")
    return wrong


def _held(
    name: str,
    node: str,
    profile: str,
    claim: Mapping[str, Any] | None,
    given: Mapping[tuple[str, str], str],
    used: Counter[tuple[str, str]],
) -> list[str]:
    """Of a pod with a claim: exactly one device of its profile, of its node, that nobody else has."""
    if claim is None:
        return [f"{name} has no claim"]
    results = claim["status"]["allocation"]["devices"]["results"]
    wrong = []
    for one in results:
        place = one["pool"], one["device"]
        used[place] += 1
        if one["pool"] != node or given.get(place) != profile:
            wrong.append(f"{name} on {node} wants {profile} and holds {place}, a {given.get(place)}")
        if used[place] > 1:
            wrong.append(f"{place} is given twice")
    return wrong if len(results) == 1 else [*wrong, f"{name} holds {len(results)} devices"]


def _resource(profile: str) -> str:
    return "nvidia.com/gpu" if profile == "gpu" else f"nvidia.com/mig-{profile}"
