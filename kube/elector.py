"""Leader election by Lease, in a thread of its own.

A leader is one only until `renew_s` after the *start* of its last successful renewal, by the monotonic clock, whatever
this thread is doing: `fence()` before every write holds even in a process that was frozen and woke up. Losing
leadership is final: `on_lost` is called once and is expected to end the process.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from kube.connection import Connection
from kube.errors import AnswerError, Conflict, Fenced, KubeError, NotFound
from kube.lease import LeaseCalls, Sighting, Step, StoredLease, Timing, manifest, next_step

log = logging.getLogger(__name__)


class Elector:
    """One candidate for one Lease. Callbacks run in the elector's thread."""

    def __init__(
        self,
        connection: Connection,
        *,
        namespace: str,
        name: str,
        identity: str,
        on_acquired: Callable[[], None],
        on_lost: Callable[[str], None],
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`identity` must be unique to this life of the process (pod name and a random part)."""
        self.identity = identity
        self._namespace, self._name = namespace, name
        self._timing = timing or Timing()
        self._calls = LeaseCalls(connection, namespace, name, self._timing.call_timeout_s)
        self._on_acquired, self._on_lost = on_acquired, on_lost
        self._clock = clock
        self._sighting: Sighting | None = None
        self._transitions = 0
        self._leads_until_s: float | None = None
        self._must_look = True
        self._told_nowhere = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="elector", daemon=True)

    def start(self) -> None:
        """Begin to stand for election."""
        self._thread.start()

    def is_leader(self) -> bool:
        """Whether this process may act now."""
        until_s = self._leads_until_s
        return until_s is not None and self._clock() < until_s

    def fence(self) -> None:
        """Raise Fenced unless this process may act now; called before every write."""
        if not self.is_leader():
            raise Fenced(f"'{self.identity}' does not lead '{self._namespace}/{self._name}': nothing is written.")

    def stop(self, timeout_s: float = 2.0) -> None:
        """Give the lease back, so that a standby takes over at its next look. Blocks; call it off the loop."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    # --- the thread ------------------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            self._stand()
        except Exception as error:  # A candidate that stood aside in silence would be missed when the leader goes.
            log.exception("The elector ended.")
            self._lose(f": {type(error).__name__}: {error}")

    def _stand(self) -> None:
        while not self._stop.is_set():
            if self._is_over():
                return self._lose()
            next_s = self._clock() + self._timing.retry_s * random.uniform(0.9, 1.0)
            asked_s = self._attempt()
            if self._is_over():
                return self._lose()
            self._stop.wait(max(asked_s, next_s - self._clock()))
        self._release()

    def _is_over(self) -> bool:
        return self._leads_until_s is not None and not self.is_leader()

    def _attempt(self) -> float:
        """For how long the server is to be left alone; 0 when it asked for nothing."""
        try:
            self._look_and_act()
        except (Conflict, NotFound) as conflict:
            if isinstance(conflict, NotFound) and self._sighting is None:
                self._tell_nowhere(conflict)
            else:
                log.info("%s", conflict)
            self._must_look = True
            self._look_again_when_leading()
        except KubeError as error:
            log.warning("Lease: %s", error)
            return self._granted_s(error)
        return 0.0

    def _tell_nowhere(self, error: NotFound) -> None:
        if not self._told_nowhere:
            log.warning(
                "The lease '%s' cannot be made, so nobody leads: is there a namespace '%s'? It is tried again. %s",
                self._name,
                self._namespace,
                error,
            )
        self._told_nowhere = True

    def _granted_s(self, error: KubeError) -> float:
        """Of what the server asks, as much as leaves a leader time to try again."""
        asked_s = error.retry_after_s if isinstance(error, AnswerError) else None
        until_s = self._leads_until_s
        most_s = self._timing.lease_s if until_s is None else (until_s - self._clock()) / 2
        return max(0.0, min(asked_s or 0.0, most_s))

    def _look_again_when_leading(self) -> None:
        # A renewal that timed out may have been stored after all, which makes our next one conflict with ourselves.
        if self._leads_until_s is None:
            return
        try:
            self._look_and_act()
        except KubeError as error:
            log.warning("Lease: %s", error)

    def _look_and_act(self) -> None:
        started_s = self._clock()
        # A leader writes at once: the version it saw last proves that nobody else wrote.
        if self._leads_until_s is None or self._must_look:
            self._see(self._calls.get())
            self._must_look = False
        step = next_step(self._sighting, self.identity, self._clock(), self._timing)
        if step is Step.WAIT:
            if self._leads_until_s is not None:
                self._leads_until_s = started_s  # Someone else holds it: over, at once.
            return
        if step is Step.RENEW and self._leads_until_s is None:
            log.warning("The lease is already held under our identity '%s'; renewing it.", self.identity)
        stored = self._write(step)
        self._see(stored)
        self._lead_from(started_s)

    def _see(self, lease: StoredLease | None) -> None:
        if lease is None:
            self._sighting = None
            return
        self._transitions = lease.transitions
        now_s = self._clock()
        before = self._sighting or Sighting(lease.holder, lease.resource_version, now_s)
        self._sighting = before.seen_again(lease.holder, lease.resource_version, now_s)

    def _write(self, step: Step) -> StoredLease:
        lease = manifest(
            self._namespace,
            self._name,
            holder=self.identity,
            timing=self._timing,
            transitions=self._transitions + (1 if step is Step.TAKE else 0),
            resource_version=self._sighting.resource_version if self._sighting else None,
        )
        return self._calls.create(lease) if step is Step.CREATE else self._calls.update(lease)

    def _lead_from(self, started_s: float) -> None:
        was_leading = self._leads_until_s is not None
        if was_leading and not self.is_leader():
            return  # The renewal came too late: another may have acted in between.
        self._leads_until_s = started_s + self._timing.renew_s
        self._told_nowhere = False
        if not was_leading:
            log.info("'%s' leads '%s/%s'.", self.identity, self._namespace, self._name)
            self._on_acquired()

    def _lose(self, why: str = "") -> None:
        self._leads_until_s = float("-inf")
        message = f"'{self.identity}' lost the lease '{self._namespace}/{self._name}'{why}"
        log.error("%s.", message)
        self._calls.close()
        self._on_lost(message)

    def _release(self) -> None:
        leading, self._leads_until_s = self.is_leader(), None
        if leading and self._sighting is not None:
            lease = manifest(
                self._namespace,
                self._name,
                holder="",
                timing=self._timing,
                transitions=self._transitions,
                resource_version=self._sighting.resource_version,
            )
            try:
                self._calls.update(lease)
            except KubeError as error:
                log.warning("The lease was not given back; it runs out by itself: %s", error)
        self._calls.close()
