"""Requests whose grammar is being compiled: in a thread, so that a slow one holds up no step of the others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from worker_image.engine.grammar import Grammars, Matcher
from worker_image.engine.messages import Add
from worker_image.errors import WorkerError


class Compiling:
    """Requests go in by `submit` and come out of `done`, in their order."""

    def __init__(self, load: Callable[[], Grammars]) -> None:
        """load: called in the thread at the first grammar; it reads the tokenizer."""
        self._load = load
        self._grammars: Grammars | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammars")
        self._pending: list[tuple[Add, Future[Matcher]]] = []

    def __len__(self) -> int:
        return len(self._pending)

    def submit(self, request: Add) -> None:
        assert request.sampling.grammar is not None
        self._pending.append((request, self._thread.submit(self._compile, request.sampling.grammar, request)))

    def _compile(self, grammar: str, request: Add) -> Matcher:
        self._grammars = self._grammars or self._load()
        matcher = self._grammars.matcher(grammar, request.cache_salt)
        for token in request.prompt[len(request.prompt) - request.n_generated :]:
            matcher.advance(token)
        return matcher

    def done(self, wait_s: float) -> list[tuple[Add, Matcher | None, str | None]]:
        """Those that are through, with a matcher or a sentence; where none is, waits so long for the first."""
        if self._pending:
            wait([self._pending[0][1]], wait_s)
        n_done = next((i for i, (_, job) in enumerate(self._pending) if not job.done()), len(self._pending))
        through, self._pending = self._pending[:n_done], self._pending[n_done:]
        return [(request, *_result(job)) for request, job in through]


def _result(job: Future[Matcher]) -> tuple[Matcher | None, str | None]:
    try:
        matcher = job.result()
    except (WorkerError, ValueError) as error:
        # The checkpoint has no tokenizer, or one that llguidance cannot read.
        return None, f"this model cannot follow a grammar: {error}"
    return matcher, None if matcher.error is None else f"the grammar failed: {matcher.error}"
