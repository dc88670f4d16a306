"""Requests whose grammar is being compiled: in a thread, so that a slow one holds up no step of the others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import compress
from operator import not_
from threading import Lock

from worker_image.engine.grammar import Grammars, Matcher
from worker_image.engine.messages import Add
from worker_image.errors import WorkerError
from worker_image.turns import Turns


class Compiling:
    """Requests go in by `submit` and come out of `done` as they are ready; of several tenants, by turns."""

    def __init__(self, load: Callable[[], Grammars]) -> None:
        """load: called in the thread at the first grammar; it reads the tokenizer."""
        self._load = load
        self._grammars: Grammars | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammars")
        self._pending: list[tuple[Add, Future[Matcher]]] = []
        self._turns: Turns[tuple[Add, Future[Matcher]]] = Turns()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._pending)

    def submit(self, request: Add) -> None:
        pending = request, Future[Matcher]()
        self._pending.append(pending)
        with self._lock:
            self._turns.add(request.standing.tenant, pending)
        self._thread.submit(self._compile_next)

    def drop(self, cancelled: set[int]) -> None:
        """Forgets those whose choices are all `cancelled`, unless it has begun with them."""
        self._pending = [
            (request, job)
            for request, job in self._pending
            if not (cancelled.issuperset(request.choice_ids) and job.cancel())
        ]

    def _compile_next(self) -> None:
        with self._lock:
            pending = self._turns.next()
        assert pending is not None, "it is called once for each"
        request, job = pending
        if not job.set_running_or_notify_cancel():
            return
        try:
            job.set_result(self._compile(request))
        except Exception as error:  # noqa: BLE001 - whoever takes the result looks at it
            job.set_exception(error)

    def _compile(self, request: Add) -> Matcher:
        assert request.sampling.grammar is not None
        self._grammars = self._grammars or self._load()
        matcher = self._grammars.matcher(request.sampling.grammar, request.cache_salt)
        for token in request.prompt[len(request.prompt) - request.n_generated :]:
            matcher.advance(token)
        return matcher

    def done(self, wait_s: float) -> list[tuple[Add, Matcher | None, str | None]]:
        """Those that are through, with a matcher or a sentence; where none is, waits so long for the first."""
        wait([job for _, job in self._pending], wait_s, FIRST_COMPLETED)
        ready = [job.done() for _, job in self._pending]
        through = list(compress(self._pending, ready))
        self._pending = list(compress(self._pending, map(not_, ready)))
        return [(request, *_result(job)) for request, job in through]


def _result(job: Future[Matcher]) -> tuple[Matcher | None, str | None]:
    try:
        matcher = job.result()
    except (WorkerError, ValueError) as error:
        # The checkpoint has no tokenizer, or one that llguidance cannot read.
        return None, f"this model cannot follow a grammar: {error}"
    return matcher, matcher.failure
