"""From symptoms to causes: the first branch of the tree that explains a symptom, then one cause for many workers.

Pure and without memory, so that the operator and `kubectl foretide diagnose` come to the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from controllers.plans.healing.symptoms import symptoms
from controllers.plans.healing.tree import TREE, Branch, Case
from controllers.plans.healing.values import Diagnosis, Symptom
from controllers.plans.snapshot import Snapshot, Worker
from controllers.plans.units import names_text
from crds.healing import ErrorClass, Remedy

STORM_LEAST: Final = 3
"""Workers; fewer with the same symptom may be chance."""
_OURS: Final = frozenset({Remedy.RESTART_WORKER, Remedy.MOVE_WORKER})
"""Only what would take workers away is held back in a storm."""


def diagnose(snapshot: Snapshot, now_s: float) -> list[Diagnosis]:
    """The cause with the most workers first; empty when nothing shows a symptom."""
    workers = {one.name: one for one in snapshot.workers}
    seen: dict[tuple[str, str], list[tuple[Branch, Symptom, str]]] = defaultdict(list)
    for branch, symptom, evidence in _explained(snapshot, symptoms(snapshot, now_s), workers, now_s):
        seen[branch.cause, _place(branch, symptom)].append((branch, symptom, evidence))
    found = [_diagnosis(group) for group in seen.values()]
    found = _storms(snapshot, found)
    return sorted(found, key=lambda one: (-len(one.workers), one.cause, one.workers))


def _explained(
    snapshot: Snapshot, found: Sequence[Symptom], workers: dict[str, Worker], now_s: float
) -> list[tuple[Branch, Symptom, str]]:
    """Each worker's first explanation, in the order of the tree."""
    explained: dict[str, tuple[int, Branch, Symptom, str]] = {}
    for symptom in found:
        case = _case(snapshot, symptom, workers[symptom.worker], now_s)
        for rank, branch in enumerate(TREE):
            evidence = branch.check(case) if symptom.kind in branch.symptoms else None
            if evidence is None:
                continue
            known = explained.get(symptom.worker)
            if known is None or rank < known[0]:
                explained[symptom.worker] = (rank, branch, symptom, evidence)
            break
    return [one[1:] for one in explained.values()]


def _case(snapshot: Snapshot, symptom: Symptom, worker: Worker, now_s: float) -> Case:
    siblings = [
        one
        for one in snapshot.workers
        if one.revision == worker.revision and one.ready and not one.leaving and one.name != worker.name
    ]
    node = snapshot.nodes.get(worker.node) if worker.node else None
    return Case(symptom, worker, node, len(siblings), now_s, _is_new(snapshot, worker.revision))


def _is_new(snapshot: Snapshot, revision: str) -> bool:
    """Made after the last that stood; those before it have stood once themselves."""
    good = snapshot.health.last_good if snapshot.health else None
    created = {one.name: one.created for one in snapshot.revisions}
    if good is None or revision == good or revision not in created:
        return False
    return good not in created or created[revision] >= created[good]


def _place(branch: Branch, symptom: Symptom) -> str:
    """Causes that lie in a node are told apart by it, those that lie in a revision by that."""
    if branch.cause.startswith(("Node", "Gpu")):
        return symptom.node or ""
    return symptom.revision


def _diagnosis(group: Sequence[tuple[Branch, Symptom, str]]) -> Diagnosis:
    branch, first, evidence = min(group, key=lambda one: one[1].worker)
    count = f"{len(group)} workers; " if len(group) > 1 else ""
    evidence = f"{count}{first.worker}: {evidence}"
    return Diagnosis(
        branch.cause,
        branch.error_class,
        tuple(symptom for _, symptom, _ in group),
        evidence if evidence.endswith(".") else evidence + ".",
        branch.remedies,
        branch.healer,
        branch.patience_s,
        branch.advice,
        branch.effect,
    )


# --- storms ---------------------------------------------------------------------------------------------------------


def _storms(snapshot: Snapshot, found: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Many workers with something at the same time have one cause, and restarts would only add to it."""
    staying = [one for one in snapshot.workers if not one.leaving]
    nodes = [one for one in found if one.cause == "NodeNotReady"]
    if hold := _nowhere(snapshot, len(nodes)):
        found = [replace(one, hold=hold) if one in nodes else one for one in found]
    many = [one for one in found if one not in nodes and not _OURS.isdisjoint(one.remedies)]
    ill = sorted((symptom for one in many for symptom in one.symptoms), key=lambda one: one.worker)
    is_cut = all(one.error_class is ErrorClass.NETWORK for one in many) and len(ill) == len(staying)
    if not ill or not (is_cut or (len(ill) >= STORM_LEAST and 2 * len(ill) >= len(staying))):
        return list(found)
    return [*(one for one in found if one not in many), _one_cause(snapshot, many, ill, staying)]


def _nowhere(snapshot: Snapshot, lost: int) -> str | None:
    """Why workers of nodes that are not ready are not moved."""
    if lost > 1 and not any(one.ready for one in snapshot.nodes.values()):
        return f"all {len(snapshot.nodes)} nodes are not ready, which is the control plane's or the network's doing"
    return None if snapshot.other_nodes or not lost else "no node of the cluster is ready to take its workers"


def _one_cause(
    snapshot: Snapshot, many: Sequence[Diagnosis], ill: Sequence[Symptom], staying: Sequence[Worker]
) -> Diagnosis:
    counts = f"{len(ill)} of {len(staying)} {'worker' if len(staying) == 1 else 'workers'} at the same time"
    said = f"{counts}; {ill[0].worker}: {ill[0].said}."
    worst = max(many, key=lambda one: len(one.workers))
    merged = replace(worst, symptoms=tuple(ill), remedies=(Remedy.SHIFT_TRAFFIC, Remedy.FALL_BACK))
    node = _shared([one.node for one in ill], [one.node for one in staying])
    if node:
        return replace(
            merged,
            cause="NodeFailing",
            error_class=ErrorClass.SYSTEM,
            evidence=f"All on node {node}, and no other node: {said}",
            advice=f"Look at node {node}; kubectl cordon keeps new workers off it.",
            effect="Its workers start on other nodes.",
            hold=f"one node explains all {len(ill)}, which is for Kubernetes or a person to take out of use",
        )
    revision = _shared([one.revision for one in ill], [one.revision for one in staying])
    if revision:
        return replace(
            merged,
            cause="RevisionFailing",
            error_class=ErrorClass.MODEL,
            evidence=f"All of revision {revision}, and no other: {said}",
            advice="Set spec.rollout.rollbackTo to the earlier revision, or take the edit back.",
            effect="The earlier revision serves.",
            hold=f"one revision explains all {len(ill)}; restarts would not change it",
        )
    kinds = names_text(sorted({one.kind.value for one in ill}))
    return replace(
        merged,
        cause="FleetStorm",
        error_class=ErrorClass.NETWORK if worst.error_class is ErrorClass.NETWORK else ErrorClass.SYSTEM,
        evidence=f"{said} Symptoms: {kinds}; they share neither a node nor a revision that others do not have.",
        advice="Look at what all share: network between gateways and workers, storage, load, a change of policy.",
        effect="Workers are believed again as soon as they answer; none was restarted for it.",
        hold=f"{counts} have one cause, and restarting them would take away what still serves",
    )


def _shared(ill: Sequence[str | None], all_: Sequence[str | None]) -> str | None:
    """What all that are ill have in common and somebody else has not."""
    common = set(ill)
    if len(common) != 1:
        return None
    one = common.pop()
    return one if one and any(other != one for other in all_) else None
