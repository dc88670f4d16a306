"""Events (events.k8s.io/v1) about objects, for people who run `kubectl describe`.

Same object, reason and message within the window become one Event with a growing `series`. Recording is synchronous and
never waits, never raises; writing happens in `run()`, at a bounded rate; a failure is logged and forgotten. Events are
for people: no decision may ever depend on one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kube.api import Api


class Recorder:
    """Records transitions. `controller` and `instance` say who reports (`foretide.dev/operator`, the pod's name)."""

    def __init__(self, client: Api, *, controller: str, instance: str, clock: Callable[[], float]) -> None: ...

    def normal(self, regarding: Mapping[str, Any], reason: str, message: str, *, action: str = "Reconcile") -> None:
        """Something went as it should: `regarding` is the object (its apiVersion, kind and metadata are read)."""

    def warning(self, regarding: Mapping[str, Any], reason: str, message: str, *, action: str = "Reconcile") -> None:
        """Something a person may have to act on."""

    async def run(self) -> None:
        """Write what was recorded, until cancelled."""
