"""This node's item of `Model.status.nodes`, from what the agent knows. Pure."""

from __future__ import annotations

from controllers.model_cache.job import Job
from controllers.model_cache.patience import Failure
from controllers.model_cache.store import Record
from controllers.plans.model_cache import Action, Evict, Hold, Refuse, Wait
from crds.model import CopyState, NodeCopy

_LONGEST_MESSAGE = 1024


def of_copy(node: str, record: Record) -> NodeCopy:
    """There is a verified copy."""
    size = record.size_bytes
    state = CopyState.CACHED
    return NodeCopy(name=node, state=state, bytes=size, total_bytes=size, digest=record.digest, format=record.format)


def of_action(node: str, action: Action | None) -> NodeCopy | None:
    """The plan keeps the Model from being fetched; None when it does not."""
    match action:
        case Refuse(_, message):
            return NodeCopy(name=node, state=CopyState.FAILED, message=message[:_LONGEST_MESSAGE])
        case Hold(_, message):
            return NodeCopy(name=node, state=CopyState.EVICTED, message=message)
        case Evict(_, reason):
            return NodeCopy(name=node, state=CopyState.EVICTED, message=f"Evicted: {reason}")
        case Wait(_, message):
            return NodeCopy(name=node, state=CopyState.PENDING, message=message)
        case _:
            return None


def of_job(node: str, job: Job, now_s: float) -> NodeCopy:
    """It is being fetched."""
    rate = job.rate.at(now_s, job.progress.received_bytes)
    return NodeCopy(
        name=node,
        state=job.state,
        bytes=job.progress.done_bytes,
        total_bytes=job.progress.total_bytes or job.total_bytes,
        bytes_per_second=rate if job.state is CopyState.DOWNLOADING else None,
    )


def of_failure(node: str, failure: Failure, kept_bytes: int, total_bytes: int | None) -> NodeCopy:
    """The last try failed; what it brought is kept for the next."""
    return NodeCopy(
        name=node,
        state=CopyState.FAILED,
        bytes=kept_bytes,
        total_bytes=total_bytes,
        message=failure.message[:_LONGEST_MESSAGE],
    )
