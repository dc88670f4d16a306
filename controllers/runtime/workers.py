"""Takes keys from the queue and lets the reconciler of their kind work on them, several at once, until stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from controllers.runtime.interface import Key, Reconciler
from controllers.runtime.metrics import Metrics
from controllers.runtime.queue import ReconcileQueue, Taken
from crds.log_lines import about
from kube.errors import AnswerError, KubeError
from kube.resources import INFERENCE_SERVICES

log = logging.getLogger(__name__)


class Workers:
    """At most `limit` reconciles at once."""

    def __init__(
        self, queue: ReconcileQueue, reconcilers: Mapping[str, Reconciler], metrics: Metrics, limit: int
    ) -> None:
        self._queue, self._reconcilers, self._metrics = queue, reconcilers, metrics
        self._slots = asyncio.Semaphore(limit)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work until cancelled; then `drain`."""
        while True:
            await self._slots.acquire()
            taken = await self._queue.get()
            task = asyncio.create_task(self._work(taken), name=f"reconcile {taken.key}")
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    async def drain(self, timeout_s: float) -> None:
        """Let what is in work end; cancel what has not ended in time."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in late:
            log.warning("%s was stopped in the middle; the next leader repeats it.", task.get_name())
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _work(self, taken: Taken) -> None:
        key, started_s = taken.key, time.monotonic()
        self._metrics.queue_wait_s.labels(key.kind).observe(taken.waited_s)
        try:
            with about(**_named(key)):
                outcome = await self._reconcilers[key.kind].reconcile(key)
        except Exception as error:  # noqa: BLE001 - logged and retried: one object must not stop the others
            self._failed(key, error)
        else:
            self._metrics.reconciles.labels(key.kind, "ok").inc()
            self._queue.done(key, outcome.requeue_after_s)
        finally:
            self._metrics.reconcile_s.labels(key.kind).observe(time.monotonic() - started_s)

    def _failed(self, key: Key, error: Exception) -> None:
        self._metrics.reconciles.labels(key.kind, "error").inc()
        asked_s = error.retry_after_s if isinstance(error, AnswerError) else None
        delay_s = self._queue.failed(key, asked_s or 0.0)
        expected = isinstance(error, KubeError)
        log.log(
            logging.WARNING if expected else logging.ERROR,
            "%s: %s Next look in %.1f s.",
            key,
            error if expected else f"{type(error).__name__}: {error}.",
            delay_s,
            exc_info=None if expected else error,
            extra=_named(key),
        )


def _named(key: Key) -> dict[str, str]:
    """The object as log lines name it."""
    named = {"kind": key.kind, "object": key.name}
    if key.namespace is not None:
        named["namespace"] = key.namespace
    if key.kind == INFERENCE_SERVICES.kind:
        named["service"] = key.name
    return named
