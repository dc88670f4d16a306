"""What `/healthz` and `/readyz` say. Healthy means progress: an answer at all proves the loop, the rest is checked.

An API server that is away is no illness of ours: restarting would not bring it back and would cost the warm caches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from controllers.runtime.queue import ReconcileQueue
from kube.informer import Informer

STALLED_AFTER_S: Final = 90.0
"""An informer does something at least every 20 s (silent streams are reopened), a refused one every 18 s."""
STUCK_AFTER_S: Final = 300.0
"""A reconcile's requests end within 30 s each, and a new service takes six; ten may be slow before it is stuck."""


class Health:
    """Reads the runtime; changes nothing."""

    def __init__(self, queue: ReconcileQueue, informers: Mapping[str, Informer[Any]]) -> None:
        self._queue, self._informers = queue, informers

    def problems(self) -> list[str]:
        """Why the process should be restarted; empty when it should not."""
        found = [
            f"The cache of {name} has done nothing for {one.stalled_s:.0f} s (at most {STALLED_AFTER_S:.0f})."
            for name, one in self._informers.items()
            if one.stalled_s > STALLED_AFTER_S
        ]
        longest = self._queue.longest_work_s()
        if longest is not None and longest[1] > STUCK_AFTER_S:
            found.append(f"{longest[0]} has been in work for {longest[1]:.0f} s (at most {STUCK_AFTER_S:.0f}).")
        return found

    def unready(self) -> list[str]:
        """Why it could not lead now; empty when it could."""
        return [
            f"The first list of {name} is not complete{f': {one.last_error}' if one.last_error else '.'}"
            for name, one in self._informers.items()
            if not one.synced.is_set()
        ]
