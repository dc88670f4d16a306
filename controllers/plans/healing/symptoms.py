"""What each worker shows, from its pod, its node's word aside, and from what gateways hold against it. Pure.

Only what is fresh counts: a worker of which nothing is known shows nothing. Judges nothing; `tree` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from controllers.plans.healing.values import Kind, NodeFacts, Objection, Objections, Symptom
from controllers.plans.health import CONFIG_REASONS, CREATION_S, IMAGE_REASONS, in_creation_s, last_sentence
from controllers.plans.snapshot import Load, Snapshot, Worker
from controllers.plans.times import seconds_since

FRESH_S: Final = 5.0
"""What gateways said before that is no signal."""
BELIEVE_S: Final = 2.0
"""A loss that passes sooner is not worth a word."""
EJECTIONS: Final = 3
"""In a row: half a minute of being worse than its equals whenever it is tried. Fewer may be chance."""
CRASHES: Final = 2
SHORT_RUN_S: Final = 120.0
"""A container that ended after less has not worked; one that ran for days and was restarted twice is no crash loop."""
UNREADY_S: Final = 60.0
WAITING_S: Final = 60.0
LOAD_FRESH_S: Final = 15.0
KV_FULL: Final = 0.95
_LOSSES: Final = {"hung": Kind.HUNG, "silent": Kind.SILENT, "refused": Kind.REFUSED}


def symptoms(snapshot: Snapshot, now_s: float) -> list[Symptom]:
    """Of all workers that stay, by name; one of each kind for each worker."""
    heard = fresh(snapshot.objections)
    found: list[Symptom] = []
    for worker in sorted(snapshot.workers, key=lambda one: one.name):
        if not worker.leaving:
            node = snapshot.nodes.get(worker.node) if worker.node else None
            found += [*_of_node(worker, node, now_s), *_of_pod(worker, now_s), *_of_gateways(worker, heard, now_s)]
            found += _of_load(worker, snapshot.loads.get(worker.name))
    return found


def shows_later_s(snapshot: Snapshot, now_s: float) -> list[float]:
    """When time alone may make symptoms of what is seen now."""
    waits = []
    for worker in snapshot.workers:
        if worker.ready or worker.leaving:
            continue
        if worker.started and worker.unready_since:
            waits.append(UNREADY_S - seconds_since(worker.unready_since, now_s))
        elif _waits(worker) and worker.created:
            waits.append(WAITING_S - seconds_since(worker.created, now_s))
        elif (for_s := in_creation_s(worker, now_s)) is not None:
            waits.append(CREATION_S - for_s)
    return [one for one in waits if one > 0]


def fresh(objections: Objections | None) -> Mapping[str, Mapping[str, Objection]]:
    """By gateway; empty where nothing is known."""
    return {} if objections is None or objections.age_s > FRESH_S else objections.by_gateway


def _of_node(worker: Worker, node: NodeFacts | None, now_s: float) -> Iterable[Symptom]:
    if node is not None and not node.ready:
        yield _symptom(Kind.NODE_GONE, worker, f"node {node.name} is not ready", seconds_since(node.since, now_s))


def _unready_s(worker: Worker, now_s: float) -> float:
    return seconds_since(worker.unready_since or worker.created, now_s)


def _waits(worker: Worker) -> bool:
    return worker.unschedulable is not None or worker.waiting_reason in IMAGE_REASONS


def _of_pod(worker: Worker, now_s: float) -> Iterable[Symptom]:
    if worker.ready:
        return
    if _waits(worker):
        said = worker.unschedulable or worker.waiting_message or worker.waiting_reason or ""
        for_s = seconds_since(worker.created, now_s)
        if for_s >= WAITING_S:
            yield _symptom(Kind.WAITING, worker, said, for_s)
    elif worker.waiting_reason in CONFIG_REASONS:
        said = worker.waiting_message or worker.waiting_reason or ""
        yield _symptom(Kind.NOT_STARTED, worker, said, _unready_s(worker, now_s))
    elif _crashes(worker):
        yield _symptom(Kind.CRASHING, worker, _ending(worker), _unready_s(worker, now_s))
    elif worker.started and seconds_since(worker.unready_since, now_s) >= UNREADY_S:
        for_s = seconds_since(worker.unready_since, now_s)
        yield _symptom(Kind.UNREADY, worker, f"it runs and has not been ready for {UNREADY_S:g} s", for_s)


def _crashes(worker: Worker) -> bool:
    if worker.ended_code in (None, 0) or worker.restarts < CRASHES or worker.started:
        return False
    return worker.waiting_reason == "CrashLoopBackOff" or (worker.ran_s is not None and worker.ran_s < SHORT_RUN_S)


def _ending(worker: Worker) -> str:
    """`OOMKilled (exit code 137), 4 restarts: …`"""
    name = f"{worker.ended_reason or 'Error'} (exit code {worker.ended_code}), {worker.restarts} restarts"
    said = last_sentence(worker.ended_message)
    return f"{name}: {said}" if said else name


def _of_gateways(worker: Worker, heard: Mapping[str, Mapping[str, Objection]], now_s: float) -> Iterable[Symptom]:
    """A loss is one when all gateways that answered say so; an ejection, when one of them did it again and again.
    What is older than its readiness is about its life before a restart."""
    if not worker.ready or not heard:
        return
    ready_s = seconds_since(worker.ready_since, now_s) if worker.ready_since else math.inf
    told = {gateway: pods[worker.name] for gateway, pods in heard.items() if worker.name in pods}
    said = {gateway: one for gateway, one in told.items() if one.since_s <= ready_s}
    lost = {gateway: one for gateway, one in said.items() if one.state == "lost"}
    if lost and min(one.since_s for one in lost.values()) >= BELIEVE_S:
        first = lost[min(lost)]
        if len(lost) == len(heard):
            for_s = min(one.since_s for one in lost.values())
            yield _symptom(_LOSSES.get(first.reason, Kind.SILENT), worker, first.message, for_s)
        else:
            counts = f"{len(lost)} of {len(heard)} gateways ({', '.join(sorted(lost))})"
            yield _symptom(Kind.ONE_SIDED, worker, f"{first.message}: so say {counts}", serving=True)
    ejected = [one for one in said.values() if one.state != "lost" and one.times >= EJECTIONS]
    if ejected:
        worst = max(ejected, key=lambda one: (one.times, one.message))
        kind = Kind.SLOW if worst.reason == "LatencyOutlier" else Kind.FAILING
        yield _symptom(kind, worker, worst.message, max(one.since_s for one in ejected), serving=True)


def _of_load(worker: Worker, load: Load | None) -> Iterable[Symptom]:
    if worker.ready and load and load.age_s <= LOAD_FRESH_S and load.kv_use >= KV_FULL and load.waiting:
        yield _symptom(Kind.KV_FULL, worker, f"KV cache ≥ {KV_FULL:.0%} in use while requests wait", serving=True)


def _symptom(kind: Kind, worker: Worker, said: str, for_s: float = 0.0, *, serving: bool = False) -> Symptom:
    text = " ".join(said.split())[:400]
    return Symptom(kind, worker.name, worker.node, worker.revision, text, max(for_s, 0.0), serving)
