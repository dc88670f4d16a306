"""What which policies' alerts ask of which services, and who must look when that changes. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controllers.plans.alerting.wishes import NOTHING, Place, Wishes
from controllers.runtime.interface import Key
from kube.resources import INFERENCE_SERVICES


class WishBoard:
    """Written by the desk of alerts, read by the reconciler of services."""

    def __init__(self, wake: Callable[[Key], None] = lambda key: None) -> None:
        self._wake = wake
        self._of_policy: dict[Place, Mapping[Place, Wishes]] = {}
        self._complete = False

    def put(self, policy: Place, wishes: Mapping[Place, Wishes]) -> None:
        """What this policy asks from now on."""
        before = self._of_policy.pop(policy, {})
        if wishes:
            self._of_policy[policy] = wishes
        for service in sorted(before.keys() | wishes.keys()):
            if before.get(service) != wishes.get(service):
                self.concern(*service)

    def concern(self, namespace: str, service: str) -> None:
        """Somebody says something of this service: it is looked at now."""
        self._wake(Key(INFERENCE_SERVICES.kind, namespace, service))

    def complete(self) -> None:
        """Every policy was looked at once."""
        self._complete = True

    def known(self, key: Key) -> Wishes | None:
        """None until every policy was looked at once: who has just taken over must not take silence for nothing."""
        return self.of(key) if self._complete else None

    def of(self, key: Key) -> Wishes:
        """Of all policies, in the order of their names."""
        place, found = (key.namespace or "", key.name), NOTHING
        for policy in sorted(self._of_policy):
            found = found.and_those(self._of_policy[policy].get(place, NOTHING))
        return found
