"""What a Model's status says, given what the agents of the nodes report. Pure.

The agents own `status.nodes`; everything else of the status is computed here. An entry of a node that no longer exists
counts for nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from controllers.plans.units import bytes_text, names_text
from crds.conditions import READY, RECONCILING, STALLED
from crds.model import CopyState, MeasuredProfile, ModelSpec, NodeCopy

_LONGEST_STATE: Final = 256
_MOST_PROFILES: Final = 32
_LONGEST_FIELD_MANAGER: Final = 128
_UNDER_WAY: Final = (CopyState.PENDING, CopyState.DOWNLOADING, CopyState.VERIFYING)
_LIFECYCLE_TAINTS: Final = "node.kubernetes.io/"
"""Taints that say how a node is at the moment; a DaemonSet tolerates them."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node as this plan sees it."""

    name: str
    labels: Mapping[str, str]
    tainted: bool = False
    """Keeps ordinary pods away, so an agent may or may not run there."""

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> Node:
        """From the object as JSON."""
        taints = (obj.get("spec") or {}).get("taints") or []
        keeps_away = [
            one
            for one in taints
            if one.get("effect") != "PreferNoSchedule" and not str(one.get("key", "")).startswith(_LIFECYCLE_TAINTS)
        ]
        return cls(obj["metadata"]["name"], obj["metadata"].get("labels") or {}, bool(keeps_away))


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one Model."""

    spec: ModelSpec
    generation: int
    copies: Sequence[NodeCopy]
    nodes: Sequence[Node]
    agents_on: Mapping[str, str] = field(default_factory=dict)
    """Labels of the nodes that have an agent; every Linux node when empty."""
    used_by: Sequence[str] = ()
    digest_before: str | None = None
    """status.digest so far: the first copy decided, and stays the measure."""
    claim_phase: str | None = None
    """For a pvc:// source: phase of the user's claim, None when there is none."""
    volume_problem: str | None = None
    """Why the Model's own volume cannot be bound."""
    refused: str | None = None
    """Why the API server takes no volume or claim of this Model."""
    deleting: bool = False
    profiles: Sequence[MeasuredProfile] = ()
    """As the status has them."""
    measured: Sequence[MeasuredProfile] = ()
    """By this process, since."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The status to write, without `nodes` and without condition times."""

    fields: Mapping[str, Any]
    conditions: Sequence[Mapping[str, Any]]
    strangers: Sequence[str] = field(default_factory=tuple)
    """Nodes with an entry that do not exist any more."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Ready and why; `stalled` and `reconciling` as kstatus means them."""

    ready: bool
    reason: str
    message: str
    state: str
    reconciling: bool = False
    stalled: bool = False


def assess(facts: Facts) -> Assessment:
    """Everything that `kubectl get models` shows."""
    names = {node.name for node in facts.nodes}
    strangers = sorted(copy.name for copy in facts.copies if copy.name not in names)
    common: dict[str, Any] = {"observedGeneration": facts.generation, "usedBy": sorted(facts.used_by)[:1000]}
    if claim_of(facts.spec.source) is not None:
        fields, verdict = _claim_fields(facts.spec), _claim_verdict(facts)
    else:
        wanted = wanted_nodes(facts.spec, facts.nodes, facts.copies, facts.agents_on)
        digest = facts.spec.digest or facts.digest_before
        copies = {copy.name: _held_to(copy, digest) for copy in facts.copies if copy.name in names}
        cached = [copies[name] for name in wanted if name in copies and copies[name].state is CopyState.CACHED]
        fields, verdict = _cache_fields(facts, wanted, copies, cached), _cache_verdict(facts, wanted, copies, cached)
    if facts.deleting:
        verdict = _deleting(facts, verdict)
    fields = {**common, **fields, **_profiles(facts), "state": _cut(verdict.state)}
    return Assessment(fields, _conditions(verdict), strangers)


def _held_to(copy: NodeCopy, digest: str | None) -> NodeCopy:
    """A copy of other weights counts for nothing: its agent holds it to the same digest and fetches it anew."""
    if copy.state is not CopyState.CACHED or digest in (None, copy.digest):
        return copy
    return NodeCopy(name=copy.name, state=CopyState.PENDING)


def _profiles(facts: Facts) -> dict[str, Any]:
    """The newest of each accelerator; the oldest ones go where there are too many."""
    newest: dict[str, MeasuredProfile] = {}
    for one in sorted((*facts.profiles, *facts.measured), key=lambda each: each.measured):
        newest[one.accelerator] = one
    kept = sorted(newest.values(), key=lambda each: each.measured)[-_MOST_PROFILES:]
    return {"profiles": [one.dump() for one in sorted(kept, key=lambda each: each.accelerator)]} if kept else {}


def claim_of(source: str) -> str | None:
    """Name of the claim of a pvc:// source, else None."""
    if not source.startswith("pvc://"):
        return None
    return source.removeprefix("pvc://").split("/", 1)[0]


def wanted_nodes(
    spec: ModelSpec, nodes: Sequence[Node], copies: Sequence[NodeCopy], agents_on: Mapping[str, str]
) -> list[str]:
    """Nodes that should have a copy: those with an agent. A tainted one counts from the first word of its agent."""
    reporting = {copy.name for copy in copies}
    return sorted(
        node.name
        for node in nodes
        if admits(spec, node.labels)
        and _has_all(node.labels, agents_on)
        and (not node.tainted or node.name in reporting)
    )


def admits(spec: ModelSpec, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels should keep a copy."""
    if labels.get("kubernetes.io/os", "linux") != "linux" or claim_of(spec.source) is not None:
        return False
    return _has_all(labels, spec.node_selector or {})


def _has_all(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())


def _cache_fields(
    facts: Facts, wanted: Sequence[str], copies: Mapping[str, NodeCopy], cached: Sequence[NodeCopy]
) -> dict[str, Any]:
    fields: dict[str, Any] = {"cached": f"{len(cached)}/{len(wanted)}"}
    digests = {copy.digest for copy in cached if copy.digest}
    fields["verified"] = bool(cached) and len(digests) <= 1
    first = min(cached, key=lambda copy: copy.name, default=None)
    digest = facts.spec.digest or facts.digest_before or (first.digest if first else None)
    if digest is not None:
        fields["digest"] = digest
    format_ = first.format if first and first.format else facts.spec.format
    if format_ is not None:
        fields["format"] = format_.value
    size_bytes = first.bytes if first else max((copy.total_bytes or 0 for copy in copies.values()), default=0)
    if size_bytes:
        fields["sizeBytes"], fields["size"] = size_bytes, bytes_text(size_bytes)
    return fields


def _cache_verdict(
    facts: Facts, wanted: Sequence[str], copies: Mapping[str, NodeCopy], cached: Sequence[NodeCopy]
) -> _Verdict:
    """The questions in order: may it work at all, do the copies agree, is there one, is there more to come."""
    if facts.refused is not None:
        return _Verdict(False, "ChildRefused", facts.refused, facts.refused, stalled=True)
    if facts.volume_problem is not None:
        return _Verdict(False, "VolumeNotBound", facts.volume_problem, facts.volume_problem, stalled=True)
    if not wanted:
        return _no_node(facts.spec, facts.agents_on)
    digests = {copy.name: copy.digest for copy in cached if copy.digest}
    if len(set(digests.values())) > 1:
        return _digests_differ(digests)
    of_wanted = [copies.get(name, NodeCopy(name=name, state=CopyState.PENDING)) for name in wanted]
    under_way = [copy for copy in of_wanted if copy.state in _UNDER_WAY]
    failed = [copy for copy in of_wanted if copy.state is CopyState.FAILED]
    state = _state(of_wanted, under_way, failed)
    if not cached:
        if not under_way and failed:
            return _Verdict(False, "Failed", _failures(failed), state, stalled=True)
        return _Verdict(False, *_progress(of_wanted, under_way), state, reconciling=bool(under_way))
    have = f"{len(cached)} of {len(wanted)} nodes hold a verified copy."
    message = f"{have} {_failures(failed)}".rstrip() if failed else have
    return _Verdict(True, "Cached", message, state, reconciling=bool(under_way))


def _no_node(spec: ModelSpec, agents_on: Mapping[str, str]) -> _Verdict:
    pairs = {*(spec.node_selector or {}).items(), *agents_on.items()}
    labels = ", ".join(f"{key}={value}" for key, value in sorted(pairs))
    found = f"No node has the labels {labels}" if labels else "The cluster has no Linux node that takes workers"
    way_out = "spec.nodeSelector or Helm value modelCache.nodeSelector" if agents_on else "spec.nodeSelector"
    message = f"{found}; label a node or change {way_out}."
    return _Verdict(False, "NoNode", message, "No node should have a copy", stalled=True)


def _digests_differ(digests: Mapping[str, str | None]) -> _Verdict:
    found = ", ".join(f"{name} has {digest}" for name, digest in sorted(digests.items())[:4])
    message = (
        f"The source gave different weights to different nodes: {found}."
        " Make a new Model with spec.digest, or with a source that names one version."
    )
    return _Verdict(False, "DigestsDiffer", message, "Failed: the nodes' copies differ", stalled=True)


def _progress(copies: Sequence[NodeCopy], under_way: Sequence[NodeCopy]) -> tuple[str, str]:
    """Reason and message while there is no copy yet."""
    if not under_way:
        return "Evicted", "Every node evicted its copy to make room; one comes back when a worker needs it."
    started = [copy for copy in under_way if copy.state is not CopyState.PENDING]
    if not started:
        names = names_text([copy.name for copy in under_way])
        return "Pending", f"Waiting for the agent on {names} to fetch the weights."
    return (
        "Downloading",
        f"{len(started)} of {len(copies)} nodes fetch the weights; none has a verified copy yet.",
    )


def _state(copies: Sequence[NodeCopy], under_way: Sequence[NodeCopy], failed: Sequence[NodeCopy]) -> str:
    """One line for people: the download that is furthest, else a failure, else what stands."""
    started = [copy for copy in under_way if copy.state is not CopyState.PENDING]
    if started:
        return _download(max(started, key=lambda copy: (_share(copy), copy.name)))
    if failed:
        more = f" (and on {len(failed) - 1} more)" if len(failed) > 1 else ""
        return f"Failed on {failed[0].name}{more}: {failed[0].message or 'no reason given'}"
    if under_way:
        return f"Pending on {names_text([copy.name for copy in under_way])}"
    evicted = [copy.name for copy in copies if copy.state is CopyState.EVICTED]
    return f"Cached, evicted on {names_text(evicted)}" if evicted else "Cached"


def _download(copy: NodeCopy) -> str:
    if copy.state is CopyState.VERIFYING:
        return f"Verifying ({copy.name})"
    done = f"{int(100 * _share(copy))}%" if copy.total_bytes else bytes_text(copy.bytes)
    rate = f", {bytes_text(copy.bytes_per_second)}/s" if copy.bytes_per_second is not None else ""
    return f"Downloading {done} ({copy.name}{rate})"


def _share(copy: NodeCopy) -> float:
    if copy.state is CopyState.VERIFYING:
        return 1.0
    return min(copy.bytes / copy.total_bytes, 1.0) if copy.total_bytes else 0.0


def _failures(failed: Sequence[NodeCopy]) -> str:
    shown = " ".join(f"{copy.name}: {copy.message or 'failed without a reason.'}" for copy in failed[:3])
    return f"{shown} And {len(failed) - 3} more nodes." if len(failed) > 3 else shown


def _claim_fields(spec: ModelSpec) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if spec.digest is not None:
        fields["digest"] = spec.digest
    if spec.format is not None:
        fields["format"] = spec.format.value
    return fields


def _claim_verdict(facts: Facts) -> _Verdict:
    claim = claim_of(facts.spec.source)
    where = f"On claim '{claim}'"
    if facts.claim_phase is None:
        message = f"PersistentVolumeClaim '{claim}' is not in the Model's namespace; create it or correct spec.source."
        return _Verdict(False, "ClaimNotFound", message, f"Waiting for claim '{claim}'", stalled=True)
    if facts.claim_phase != "Bound":
        message = f"PersistentVolumeClaim '{claim}' is {facts.claim_phase}, not Bound: kubectl describe pvc {claim}"
        return _Verdict(False, "ClaimNotBound", message, f"Waiting for claim '{claim}'", reconciling=True)
    checked = "digest and format" if facts.spec.digest else "the format (spec.digest is not set)"
    return _Verdict(True, "OnClaim", f"Claim '{claim}' is bound; each worker checks {checked} when it starts.", where)


def _deleting(facts: Facts, verdict: _Verdict) -> _Verdict:
    if not facts.used_by:
        message = "The Model is being deleted; its volume goes first."
        return _Verdict(False, "Deleting", message, "Being deleted", reconciling=True)
    users = names_text(sorted(facts.used_by))
    message = f"The Model is being deleted and stays until InferenceService {users} no longer names it."
    return _Verdict(verdict.ready, "InUse", message, f"Being deleted, used by {users}", reconciling=True)


def _conditions(verdict: _Verdict) -> list[dict[str, Any]]:
    both = {"reason": verdict.reason, "message": verdict.message}
    out: list[dict[str, Any]] = [{"type": READY, "status": "True" if verdict.ready else "False", **both}]
    if verdict.reconciling:
        out.append({"type": RECONCILING, "status": "True", **both})
    if verdict.stalled:
        out.append({"type": STALLED, "status": "True", **both})
    return out


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_STATE else text[: _LONGEST_STATE - 1] + "…"


def field_manager(node_name: str) -> str:
    """Under which name the agent of a node owns its item of status.nodes; at most 128 characters."""
    plain = f"foretide-cache-{node_name}"
    if len(plain) <= _LONGEST_FIELD_MANAGER:
        return plain
    return f"{plain[: _LONGEST_FIELD_MANAGER - 17]}-{hashlib.sha256(node_name.encode()).hexdigest()[:16]}"
