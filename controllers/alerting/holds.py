"""Which rollouts wait for which policies' alerts, and who must look when that changes. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controllers.runtime.interface import Key
from kube.resources import INFERENCE_SERVICES

Place = tuple[str, str]


class HoldBoard:
    """Written by the desk of alerts, read by the reconciler of services."""

    def __init__(self, wake: Callable[[Key], None] = lambda key: None) -> None:
        self._wake = wake
        self._of_policy: dict[Place, Mapping[Place, str]] = {}

    def put(self, policy: Place, holds: Mapping[Place, str]) -> None:
        """What this policy holds from now on."""
        before = self._of_policy.pop(policy, {})
        if holds:
            self._of_policy[policy] = holds
        for service in before.keys() ^ holds.keys():
            self.concern(*service)

    def concern(self, namespace: str, service: str) -> None:
        """Somebody says something of this service: it is looked at now."""
        self._wake(Key(INFERENCE_SERVICES.kind, namespace, service))

    def of(self, key: Key) -> str | None:
        """Why the rollout of a service waits, of the first policy by name."""
        place = (key.namespace or "", key.name)
        said = (self._of_policy[policy].get(place) for policy in sorted(self._of_policy))
        return next((why for why in said if why), None)
