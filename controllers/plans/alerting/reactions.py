"""What follows from an alert beside being told: a rollout waits while it fires. Pure.

Only what a policy of the service's own namespace, or of the operator's, says; never more than holding still, and never
for longer than a day, so that an alert that nobody resolves does not keep a fleet as it is for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from controllers.plans.alerting.alerts import NAMESPACE, SERVICE, matches
from controllers.plans.alerting.book import Book, Policy
from controllers.plans.units import duration_text

LONGEST_S: Final = 86_400.0
"""After it an alert that fires holds nothing more."""

Place = tuple[str, str]
"""Namespace and name of an InferenceService."""


def holds(policy: Policy, book: Book, now_s: float) -> Mapping[Place, str]:
    """Services whose rollouts wait, and why: a sentence without a full stop."""
    found: dict[Place, str] = {}
    for reaction in policy.spec.reactions or ():
        for alert in book.alerts.values():
            place = (alert.labels.get(NAMESPACE, ""), alert.labels.get(SERVICE, ""))
            if not alert.firing or not all(place) or now_s - alert.since_s >= LONGEST_S:
                continue
            if matches(reaction.matchers, alert.labels):
                found.setdefault(place, _why(policy, reaction.name, alert.labels))
    return found


def _why(policy: Policy, reaction: str, labels: Mapping[str, str]) -> str:
    return (
        f"alert '{labels.get('alertname', '?')}' fires, and reaction '{reaction}' of AlertPolicy "
        f"{policy.namespace}/{policy.name} holds rollouts while it does, {duration_text(LONGEST_S)} at most"
    )
