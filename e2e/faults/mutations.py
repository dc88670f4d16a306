"""Field mutation: a spec goes from S0 to S1 and back, while the operator keeps up with it.

What is right at S1 is not written down anywhere: a twin that is made with S1 from the beginning says it. So children
follow the spec if an edited object has the same ones as a new one; and back at S0 it has those that it had before.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from crds.contract import LABEL_REVISION
from e2e.faults.crash import place
from e2e.faults.ground import Ground
from e2e.faults.mutants import BASES, Mutation, named
from e2e.faults.story import settled, until
from e2e.faults.telling import troubles
from e2e.faults.truth import differences, without_chance
from e2e.install import key_secret, resource
from kube.errors import Invalid, Unavailable
from kube.resources import (
    CAPACITY_FORECASTS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    RESOURCE_QUOTAS,
    SERVICE_ACCOUNTS,
    SERVICES,
    TENANTS,
    Object,
    resource_of,
)

WORLD: Final = "mutants"
CLUSTER_WIDE: Final = ("Tenant", "GPUPool")
BATCH: Final = 40
_CHILDREN: Final = (
    SERVICES,
    SERVICE_ACCOUNTS,
    NETWORK_POLICIES,
    POD_DISRUPTION_BUDGETS,
    RESOURCE_QUOTAS,
    PERSISTENT_VOLUME_CLAIMS,
    CONFIG_MAPS,
    CAPACITY_FORECASTS,
)
_HASH: Final = re.compile(r"OBJECT-[0-9a-f]{8}\b")
"""Of namespace and name, in the names of volumes."""
OTHERS: Final = "workers of others"
View = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Mutations of one kind that are tried side by side."""

    kind: str
    number: int
    mutations: tuple[Mutation, ...]

    @property
    def name(self) -> str:
        return f"{self.kind}, batch {self.number}"


def batches(every: Sequence[Mutation], size: int = BATCH) -> Iterator[Batch]:
    """By kind, in order."""
    for kind in BASES:
        of = [one for one in every if one.kind == kind]
        for number, at in enumerate(range(0, len(of), size)):
            yield Batch(kind, number + 1, tuple(of[at : at + size]))


@dataclass
class _Trial:
    """One mutation that the API server takes: an object that is edited, and a twin that is new."""

    mutation: Mutation
    edited: str
    twin: str
    before: View = field(default_factory=dict)

    def object(self, name: str, spec: Mapping[str, Any]) -> Object:
        where = None if self.mutation.kind in CLUSTER_WIDE else WORLD
        return resource(self.mutation.kind, name, where, **named(dict(spec), name))


async def tried(ground: Ground, batch: Batch, within_s: float) -> tuple[list[str], bool, dict[str, float]]:
    """There and back, all of a batch at once; some fields may be set once and for good, and stay as they are then."""
    ended, log = len(ground.lives.ended), ground.lives.log_bytes()
    await _prepare(ground)
    trials, refused = await _twins(ground, batch)
    base = BASES[batch.kind]
    await _put(ground, [one.object(one.edited, base) for one in trials])
    wrong = await _quiet(ground, within_s, "S0")
    for one in trials:
        one.before = view(ground, one.object(one.edited, base))
    takes = [one for one in trials if await _is_taken(ground, one.object(one.edited, one.mutation.spec))]
    wrong += await _quiet(ground, within_s, "S1")
    for one in takes:
        twin = view(ground, one.object(one.twin, one.mutation.spec))
        edited = view(ground, one.object(one.edited, base))
        if batch.kind == TENANTS.kind:  # Of two that ask for the same namespace or key, one must be refused.
            edited["verdict"] = twin["verdict"] = None
        wrong += _compared(one, "S1", edited, twin)
    backs = [one for one in takes if await _is_taken(ground, one.object(one.edited, base))]
    wrong += await _quiet(ground, within_s, "S0 again")
    for one in backs:
        wrong += _compared(one, "S0 again", view(ground, one.object(one.edited, base)), one.before)
    wrong += await _remove(ground, trials, within_s)
    wrong += troubles(ground, ended, log)
    counts = {"mutations": len(batch.mutations), "refused": refused, "taken": len(trials), "there and back": len(backs)}
    return wrong, True, {name: float(number) for name, number in counts.items()}


async def _prepare(ground: Ground) -> None:
    await ground.make_namespace(WORLD)
    await ground.put(
        key_secret("key", {"key": "mutants-0123456789abcdef0123456789abcdef"}),
        resource("Tenant", WORLD, namespaces=[WORLD]),
        resource("Model", "m", WORLD, source="https://models.example.com/m.gguf"),
        resource("SLA", "s", WORLD, priority="P1", targets={"ttft": "800ms"}),
    )


async def _twins(ground: Ground, batch: Batch) -> tuple[list[_Trial], int]:
    """New objects with each S1; how many the API server did not take."""
    taken: list[_Trial] = []
    for at, mutation in enumerate(batch.mutations):
        letters = chr(97 + at // 26) + chr(97 + at % 26)
        trial = _Trial(mutation, f"edited-{letters}x", f"twin-{letters}x")
        for name in (trial.edited, trial.twin) if batch.kind == TENANTS.kind else ():
            await ground.make_namespace(name)
        if await _is_taken(ground, trial.object(trial.twin, mutation.spec)):
            taken.append(trial)
    return taken, len(batch.mutations) - len(taken)


async def _put(ground: Ground, objects: Sequence[Object]) -> None:
    for one in objects:
        await ground.put(one)


async def _is_taken(ground: Ground, obj: Object) -> bool:
    """Whether the API server takes it: for a value of the wrong type, an apply is answered 500 instead of 422."""
    try:
        await ground.put(obj)
    except Invalid:
        return False
    except Unavailable as error:
        if "failed to create typed patch object" not in str(error):
            raise
        return False
    return True


async def _quiet(ground: Ground, within_s: float, when: str) -> list[str]:
    before = len(ground.proxy.writes)
    try:
        await settled(ground, WORLD, within_s)
    except TimeoutError:
        if late := ground.truth.not_followed(WORLD):
            return [f"{when}: not followed: {', '.join(late[:4])}"]
        most = Counter(" ".join(place(one.call)) for one in ground.proxy.writes[before:]).most_common(3)
        return [f"{when}: writing does not end: {', '.join(f'{number} × {what}' for what, number in most)}"]
    return []


async def _remove(ground: Ground, trials: Sequence[_Trial], within_s: float) -> list[str]:
    """Everything goes, and takes along what was made of it."""
    names = [name for one in trials for name in (one.edited, one.twin)]
    for one in trials:
        for name in (one.edited, one.twin):
            obj = one.object(name, {})
            await ground.take_away(resource_of(obj), obj["metadata"].get("namespace"), name)
    if await until(lambda: not _left(ground, names), within_s):
        return []
    return [f"left behind: {', '.join(sorted(_left(ground, names))[:6])}"]


def _left(ground: Ground, names: Sequence[str]) -> list[str]:
    standing = [*ground.truth.all(*_CHILDREN, DEPLOYMENTS), *ground.truth.declared()]
    return [
        f"{obj['kind']} {obj['metadata']['name']}"
        for obj in standing
        if any(name in obj["metadata"]["name"] or name == obj["metadata"].get("namespace") for name in names)
        and obj["metadata"]["name"] not in ("default", "kube-root-ca.crt")
    ]


def _compared(trial: _Trial, when: str, found: View, wanted: View) -> list[str]:
    if "template" not in wanted:  # What stood before serves on while what is asked for cannot stand.
        found = {key: value for key, value in found.items() if key not in ("template", "workers", OTHERS)}
        wanted = {key: value for key, value in wanted.items() if key != OTHERS}
    return [f"{trial.mutation}, {when}: {one}" for one in differences(found, wanted, most=2)]


# --- what an object has become ---------------------------------------------------------------------------------------
def view(ground: Ground, wanted: Object) -> View:
    """Children and verdict of an object, without its name and without what only history decides."""
    kind, name = resource_of(wanted), wanted["metadata"]["name"]
    obj = ground.truth.get(kind, wanted["metadata"].get("namespace"), name)
    if obj is None:
        return {"object": "gone"}
    status = obj.get("status") or {}
    found: View = {
        "spoken of": status.get("observedGeneration") in (None, obj["metadata"]["generation"]),
        "verdict": _verdict(status) if _is_steady(obj) else {},
    }
    for child in ground.truth.all(*_CHILDREN):
        if _is_child(child, obj):
            found[f"{child['kind']} {child['metadata']['name']}"] = without_chance(child)
    if kind is INFERENCE_SERVICES:
        found |= _workers(ground, obj)
    revision = status.get("currentRevision")
    text = json.dumps(found).replace(name, "OBJECT")
    text = text.replace(str(revision), "REVISION") if revision else text
    named_alike: View = json.loads(_HASH.sub("OBJECT-HASH", text))
    return named_alike


def _verdict(status: Mapping[str, Any]) -> dict[str, Any]:
    conditions = status.get("conditions") or ()
    return {one["type"]: [one["status"], one["reason"]] for one in conditions if one["type"] in ("Ready", "Stalled")}


def _is_steady(obj: Object) -> bool:
    """A canary that nobody asks goes neither on nor back: how far it is differs from a beginning."""
    rollout = obj["spec"].get("rollout") or {}
    return rollout.get("strategy", "rolling") == "rolling" and not rollout.get("paused")


def _is_child(child: Object, obj: Object) -> bool:
    owners = child["metadata"].get("ownerReferences") or ()
    return any(one["uid"] == obj["metadata"]["uid"] for one in owners)


def _workers(ground: Ground, service: Object) -> View:
    """The present revision's Deployment, and how many workers others have."""
    current, others = (service.get("status") or {}).get("currentRevision"), 0
    found: View = {}
    for one in ground.truth.all(DEPLOYMENTS):
        if not _is_child(one, service):
            continue
        if one["metadata"]["labels"].get(LABEL_REVISION) == current:
            found["template"] = without_chance(one)["spec"]["template"]
            found["workers"] = one["spec"]["replicas"] if _is_steady(service) else None
        else:
            others += one["spec"]["replicas"]
    found[OTHERS] = others if _is_steady(service) else None
    return found
