"""What one attempt says of its worker and of its revision: the same whoever carried the answer, we or another proxy.

Judges by status and times; knows neither connections nor clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.backend import Backend
from gateway.retries import Failure
from gateway.service_state import ServiceState
from gateway.usage import Usage

WORKER_FAULTS: Final = frozenset({500, 502, 504})
"""Answers that count against a worker. 503 does not: a worker with a full queue is healthy."""
_NOT_THE_WORKER_S: Final = frozenset({Failure.LOST, Failure.OUTRUN, Failure.TIMEOUT})
"""Judged by better evidence, or by the one that was quicker; and a deadline is its client's choice, however short."""
_NOT_THE_REVISION_S: Final = frozenset({Failure.DRAINING, Failure.TIMEOUT, Failure.OUTRUN})
"""A drain is nobody's fault, and a deadline may have been any."""


@dataclass(slots=True)
class Outcome:
    """How an attempt ended. Not frozen, since one is made for every request."""

    status: int
    """0: no answer began."""
    failure: Failure | None
    """Why the answer is not whole."""
    latency_s: float
    """From asking to the first byte of the answer's body."""
    streamed: bool
    drains: bool = False
    """The worker said that it takes nothing more."""


def judge(state: ServiceState, backend: Backend, outcome: Outcome, now_s: float) -> None:
    """What the worker's health and load are known by afterwards."""
    failure = outcome.failure
    if outcome.drains:
        state.said_draining(backend, now_s)
    elif failure is None and outcome.status not in WORKER_FAULTS:
        backend.met(True, outcome.latency_s if outcome.status == 200 else None, now_s)
        state.succeeded(backend, now_s)
        if outcome.streamed:
            state.first_tokens.add(outcome.latency_s)
    elif failure not in _NOT_THE_WORKER_S:
        backend.met(False, None, now_s)
        state.failed(backend, now_s)


def count(state: ServiceState, backend: Backend, outcome: Outcome, usage: Usage | None, rest_s: float) -> None:
    """What the attempt says of its revision, while revisions are compared. `rest_s`: from the first byte to the end."""
    if not state.is_split or outcome.failure in _NOT_THE_REVISION_S:
        return
    state.revisions.ended(backend.revision, good=outcome.failure is None and outcome.status < 500)
    if outcome.failure is None and usage is not None:
        latency_s, rest_s_ = (outcome.latency_s, rest_s) if outcome.streamed else (None, None)
        state.revisions.completed(backend.revision, usage.completion, latency_s, rest_s_)
