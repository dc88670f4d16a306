"""What stands now, by the administrator's eyes, in a form that two runs with other names and times have in common.

Everything that the operator writes or that follows from it, followed by informers past the proxy. What only chance or
the clock decides (uids, versions, times, random parts of names) is taken out; what is left must be the same.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from crds.contract import GROUP
from kube.api import Api
from kube.informer import Change, Informer
from kube.resources import (
    ALERT_POLICIES,
    CAPACITY_FORECASTS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    GPU_POOLS,
    INFERENCE_SERVICES,
    MODELS,
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    SLAS,
    TENANTS,
    Object,
    Resource,
)

DECLARED: Final = (INFERENCE_SERVICES, MODELS, SLAS, TENANTS, ALERT_POLICIES, CAPACITY_FORECASTS, GPU_POOLS)
WRITTEN: Final = (
    DEPLOYMENTS,
    SERVICES,
    SERVICE_ACCOUNTS,
    NETWORK_POLICIES,
    POD_DISRUPTION_BUDGETS,
    RESOURCE_QUOTAS,
    PERSISTENT_VOLUMES,
    PERSISTENT_VOLUME_CLAIMS,
    CONFIG_MAPS,
)
_NOT_ALWAYS_FOLLOWED: Final = {GPU_POOLS.kind, CAPACITY_FORECASTS.kind}
"""Another process writes the status of pools; a forecast without a service has none."""
_KUBERNETES_OWN: Final = {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}
_CHANCE: Final = frozenset(
    {
        "uid", "resourceVersion", "creationTimestamp", "managedFields", "selfLink", "clusterIP", "clusterIPs",
        "lastTransitionTime", "time", "since", "deletionTimestamp", "deletionGracePeriodSeconds", "healthCheckNodePort",
        "measured", "made", "generation", "observedGeneration", "epoch", "foretide.dev/applied", "lastDecision",
    }
)  # fmt: skip
"""The last decision tells of the way to a number of workers, which an old view can make longer."""
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
_SECONDS: Final = re.compile(r"\b\d+(\.\d+)? ?(s|ms|min)\b")
State = dict[str, Any]
"""`Kind name` → the object without what chance decides."""


@dataclass(frozen=True, slots=True)
class Born:
    """An object's beginning."""

    what: str
    version: int
    """Of the whole store, when it was first seen."""


class Truth:
    """`run` while looking; every method is immediate."""

    def __init__(self, client: Api) -> None:
        every = (*DECLARED, *WRITTEN, PODS, SECRETS)
        self._informers = {one: Informer(client, one, keep=lambda obj: obj) for one in every}
        self.changes = 0
        self.born: dict[str, Born] = {}
        """By uid, those that are gone too."""
        for informer in self._informers.values():
            informer.on_change(self._changed)

    async def run(self) -> None:
        await asyncio.gather(*(one.run() for one in self._informers.values()))

    async def synced(self) -> None:
        await asyncio.gather(*(one.synced.wait() for one in self._informers.values()))

    def _changed(self, change: Change[Object]) -> None:
        self.changes += 1
        if change.new is not None:
            meta = change.new["metadata"]
            what = f"{change.new['kind']} {meta['name']}"
            self.born.setdefault(meta["uid"], Born(what, int(meta["resourceVersion"])))

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """As it stands."""
        return self._informers[resource].get(namespace, name)

    def all(self, *resources: Resource) -> list[Object]:
        """Of these kinds, everywhere."""
        return [obj for one in resources for obj in self._informers[one].items()]

    def declared(self) -> list[Object]:
        """Of the kinds that people declare, everywhere."""
        return self.all(*DECLARED)

    def of(self, world: str, *resources: Resource) -> list[Object]:
        """What belongs to one namespace, or bears its name."""
        chosen = resources or (*DECLARED, *WRITTEN)
        return [obj for obj in self.all(*chosen) if _is_of(obj, world)]

    def state(self, world: str) -> State:
        """Everything of a namespace, its workers as numbers."""
        found: State = {}
        for obj in self.of(world):
            if (obj["kind"], obj["metadata"]["name"]) not in _KUBERNETES_OWN:
                found[f"{obj['kind']} {obj['metadata']['name']}"] = without_chance(obj)
        for name, number in self._workers(world).items():
            found[f"workers of {name}"] = number
        text = _TIME.sub("TIME", json.dumps(found, sort_keys=True)).replace(world, "WORLD")
        named: State = json.loads(_SECONDS.sub("SOME s", text))
        return named

    def _workers(self, world: str) -> Mapping[str, str]:
        """Ready and all that do not leave, by Deployment."""
        ready: Counter[str] = Counter()
        every: Counter[str] = Counter()
        for pod in self.of(world, PODS):
            deployment = pod["metadata"]["name"].rsplit("-", 2)[0]
            every[deployment] += 1
            ready[deployment] += _is_ready(pod)
        return {name: f"{ready[name]} of {number}" for name, number in every.items()}

    def left_behind(self, world: str) -> list[str]:
        """What Kubernetes has yet to take away, as its owner is gone: it begins with a kind 30 s after its CRD."""
        living = {obj["metadata"]["uid"] for obj in self.declared()}
        return [
            f"{obj['kind']} {obj['metadata']['name']}"
            for obj in self.of(world)
            for owner in obj["metadata"].get("ownerReferences", ())
            if owner["apiVersion"].startswith(f"{GROUP}/") and owner["uid"] not in living
        ]

    def not_followed(self, world: str) -> list[str]:
        """Declared objects whose status does not speak of the present spec, or that are about to go."""
        return [
            f"{obj['kind']} {obj['metadata']['name']}"
            for obj in self.of(world, *DECLARED)
            if obj["metadata"].get("deletionTimestamp") or not (obj["kind"] in _NOT_ALWAYS_FOLLOWED or _speaks(obj))
        ]

    def left(self, world: str) -> list[Object]:
        """What still stands of a namespace whose objects were all deleted."""
        found = [*self.of(world), *self.of(world, PODS)]
        return [obj for obj in found if (obj["kind"], obj["metadata"]["name"]) not in _KUBERNETES_OWN]

    def updates(self, world: str) -> Counter[str]:
        """How often the wish of each object that the operator writes was changed."""
        return Counter(
            {
                f"{obj['kind']} {obj['metadata']['name']}".replace(world, "WORLD"): obj["metadata"].get("generation", 0)
                for obj in self.of(world, DEPLOYMENTS)
            }
        )


def _is_of(obj: Object, world: str) -> bool:
    meta = obj["metadata"]
    return meta.get("namespace") == world or (meta.get("namespace") is None and world in meta["name"])


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def without_chance(obj: Object) -> Any:
    """The wish, the status of what people declare, and whose it is."""
    kept = {key: value for key, value in obj.items() if key in _FIELDS}
    if obj["kind"] in {one.kind for one in DECLARED}:
        kept["status"] = _sorted(_stripped(obj.get("status") or {}))
        kept["speaks of the spec"] = _speaks(obj)
    meta = obj["metadata"]
    kept["metadata"] = {key: meta[key] for key in ("labels", "annotations", "finalizers") if meta.get(key)}
    kept["owners"] = [f"{one['kind']} {one['name']}" for one in meta.get("ownerReferences") or ()]
    return _stripped(kept)


_FIELDS: Final = ("spec", "data", "type")


def _speaks(obj: Object) -> bool:
    return bool((obj.get("status") or {}).get("observedGeneration") == obj["metadata"].get("generation"))


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stripped(one) for key, one in value.items() if key not in _CHANCE and not _is_kubernetes(key)}
    return [_stripped(one) for one in value] if isinstance(value, list) else value


def _sorted(status: Any) -> Any:
    """Lists of a status in one order: some are in the order of what happened first."""
    if isinstance(status, dict):
        return {key: _sorted(one) for key, one in status.items()}
    if isinstance(status, list):
        return sorted(map(_sorted, status), key=lambda one: json.dumps(one, sort_keys=True))
    return status


def _is_kubernetes(key: str) -> bool:
    """Annotations of Kubernetes' own controllers."""
    return key.startswith(("deployment.kubernetes.io/", "pv.kubernetes.io/"))


def without_history(state: State) -> State:
    """Without services and their revisions, whose past shows in them: one that was edited sooner has fewer."""
    return {name: one for name, one in state.items() if not name.startswith(_OF_THE_PAST)}


_OF_THE_PAST: Final = ("InferenceService ", "Deployment ", "workers of ")


def differences(found: State, wanted: State, most: int = 8) -> list[str]:
    """Where two states differ, in words."""
    told = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    told += [f"{name} should not be" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        told += [f"{name}: {where}" for where in _unlike(found[name], wanted[name], "")]
    return told[:most]


def _unlike(found: Any, wanted: Any, path: str) -> Sequence[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(found.keys() | wanted.keys())
        return [one for key in keys for one in _unlike(found.get(key), wanted.get(key), f"{path}.{key}")]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = zip(found, wanted, strict=True)
        return [one for at, (mine, other) in enumerate(pairs) for one in _unlike(mine, other, f"{path}[{at}]")]
    return [] if found == wanted else [f"{path} is {json.dumps(found)[:160]}, was {json.dumps(wanted)[:160]}"]
