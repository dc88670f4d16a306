"""What the pods of the wanted revision say about why they are not ready, in words a person can act on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from controllers.plans.findings import Finding
from controllers.plans.snapshot import Revision, Worker
from controllers.plans.times import seconds_since

IMAGE_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
GATED: Final = "SchedulingGated"
CREATION_REASONS: Final = frozenset({"ContainerCreating", "PodInitializing"})
CREATION_S: Final = 300.0
"""Images for GPUs are large; what takes longer is worth a word."""
_MOST_CHARACTERS: Final = 400
_RESTARTS_TO_BELIEVE: Final = 2
"""One crash may be chance and heals by itself."""


def is_broken(worker: Worker) -> bool:
    """Waiting alone will not make it ready. One crash is not yet that: the kubelet starts it again at once."""
    if worker.ready or worker.leaving:
        return False
    stuck = IMAGE_REASONS | CONFIG_REASONS | {"CrashLoopBackOff"}
    return worker.waiting_reason in stuck or worker.unschedulable is not None


def check_workers(revision: Revision | None, workers: Sequence[Worker], now_s: float) -> list[Finding]:
    """Findings about `revision` and its `workers`: at most one of each reason, in the order of a worker's life."""
    if revision is None:
        return []
    concerned = sorted(
        (worker for worker in workers if worker.revision == revision.name and not worker.ready and not worker.leaving),
        key=lambda worker: worker.name,
    )
    found = [
        _creation(revision),
        _schedule(concerned),
        _gates(concerned),
        _image(concerned),
        _config(concerned),
        _in_creation(concerned, now_s),
        _crash(concerned),
    ]
    return [finding for finding in found if finding]


def _creation(revision: Revision) -> Finding | None:
    if revision.failure is None:
        return None
    reason = "QuotaExceeded" if "exceeded quota" in revision.failure else "WorkersRefused"
    return Finding(reason, f"The API server refuses workers of revision {revision.name}: {_short(revision.failure)}")


def _schedule(workers: Sequence[Worker]) -> Finding | None:
    waiting = [worker for worker in workers if worker.unschedulable is not None]
    if not waiting:
        return None
    return Finding(
        "Unschedulable",
        f"No node takes {_count(waiting)}: {_short(waiting[0].unschedulable or '')} "
        "Add nodes, free some, or set rollout.maxSurge to 0 and rollout.maxUnavailable to 1.",
    )


def _gates(workers: Sequence[Worker]) -> Finding | None:
    """Whoever set them, a queue for instance, lifts them in its own time."""
    held = [worker for worker in workers if worker.waiting_reason == GATED]
    if not held:
        return None
    return Finding(
        GATED, f"Scheduling gates hold back {_count(held)}, until who set them lifts them.", needs_person=False
    )


def _image(workers: Sequence[Worker]) -> Finding | None:
    waiting = [worker for worker in workers if worker.waiting_reason in IMAGE_REASONS]
    if not waiting:
        return None
    said = _short(waiting[0].waiting_message or waiting[0].waiting_reason or "")
    return Finding("ImagePullFailed", f"The worker image cannot be pulled for {_count(waiting)}: {said}")


def _config(workers: Sequence[Worker]) -> Finding | None:
    waiting = [worker for worker in workers if worker.waiting_reason in CONFIG_REASONS]
    if not waiting:
        return None
    said = _short(waiting[0].waiting_message or waiting[0].waiting_reason or "")
    return Finding("WorkerNotStarted", f"{_count(waiting).capitalize()} cannot be started: {said}")


def in_creation_s(worker: Worker, now_s: float) -> float | None:
    """For how long a node has been making it; None where none does."""
    if worker.waiting_reason not in CREATION_REASONS:
        return None
    return seconds_since(worker.unready_since or worker.created, now_s)


def _in_creation(workers: Sequence[Worker], now_s: float) -> Finding | None:
    held = [worker for worker in workers if (in_creation_s(worker, now_s) or 0.0) >= CREATION_S]
    if not held:
        return None
    said = _short(held[0].waiting_message or "the image is still being pulled, or a mount or an address is missing")
    return Finding(
        "ContainerCreating",
        f"Node {held[0].node} has not made {_count(held)} within {CREATION_S / 60:g} minutes: {said} "
        f"`kubectl describe pod {held[0].name}` tells more.",
        needs_person=False,
    )


def _crash(workers: Sequence[Worker]) -> Finding | None:
    crashed = [worker for worker in workers if worker.ended_code not in (None, 0)]
    if not crashed:
        return None
    first = crashed[0]
    said = last_sentence(first.ended_message) or f"exit code {first.ended_code}, no words; see its log"
    if first.ended_code == 137 and not first.ended_message:
        said = "killed (137), mostly for memory: raise accelerator.*.memory or lower engine.kvCache"
    again = any(worker.restarts >= _RESTARTS_TO_BELIEVE for worker in crashed)
    message = f"{_count(crashed).capitalize()} ended{' again and again' if again else ''}: {said}"
    return Finding("WorkerCrashing", message, needs_person=again)


def _count(workers: Sequence[Worker]) -> str:
    """Stable while the set of reasons is: names of pods would change with every restart."""
    return "1 worker" if len(workers) == 1 else f"{len(workers)} workers"


def last_sentence(message: str | None) -> str | None:
    """The worker's last word. A termination message may be the tail of a log, of which the last line counts."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    if not lines:
        return None
    try:
        entry = json.loads(lines[-1])
    except ValueError:
        return _short(lines[-1])
    if isinstance(entry, dict):
        for field in ("message", "msg", "error"):
            if isinstance(entry.get(field), str):
                return _short(entry[field])
    return _short(lines[-1])


def _short(text: str) -> str:
    one_line = " ".join(text.split())
    cut = one_line if len(one_line) <= _MOST_CHARACTERS else one_line[: _MOST_CHARACTERS - 1] + "…"
    return cut if cut.endswith((".", "…", "!", "?")) else cut + "."
