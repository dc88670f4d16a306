"""What follows from an alert beside being told, as the policy says: its service is asked for something. Pure.

Only what a policy of the service's own namespace, or of the operator's, says; for a bounded time, so that an alert that
nobody resolves does not keep a fleet as it is for ever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from controllers.plans.alerting.alerts import NAMESPACE, SERVICE, Alert, matches
from controllers.plans.alerting.book import Book, Policy
from controllers.plans.alerting.wishes import NOTHING, Floor, Hold, Place, Question, Wishes
from controllers.plans.units import duration_text
from crds.alert_policy import Reaction, ReactionKind
from crds.fields import seconds

LONGEST_S: Final = 86_400.0
"""After it an alert that fires asks for nothing more."""


def wishes(policy: Policy, book: Book, now_s: float) -> Mapping[Place, Wishes]:
    """By service."""
    found: dict[Place, Wishes] = {}
    for reaction in policy.spec.reactions or ():
        for alert in sorted(book.alerts.values(), key=lambda one: (one.since_s, one.fingerprint)):
            place = (alert.labels.get(NAMESPACE, ""), alert.labels.get(SERVICE, ""))
            if not alert.firing or not all(place) or now_s >= alert.since_s + _lasts_s(reaction):
                continue
            if matches(reaction.matchers, alert.labels):
                found[place] = found.get(place, NOTHING).and_those(_wish(policy, reaction, alert))
    return found


def next_end_s(policy: Policy, book: Book, now_s: float) -> float:
    """When the next of the reactions ends whose alert fires on; infinity where none does."""
    found = math.inf
    for reaction in policy.spec.reactions or ():
        lasts_s = _lasts_s(reaction)
        for alert in book.alerts.values():
            # The times first: of thousands of alerts few end soon, and labels take longer to compare.
            if alert.firing and now_s < alert.since_s + lasts_s < found and matches(reaction.matchers, alert.labels):
                found = alert.since_s + lasts_s
    return found


def _lasts_s(reaction: Reaction) -> float:
    return LONGEST_S if reaction.duration is None else min(seconds(reaction.duration), LONGEST_S)


def _wish(policy: Policy, reaction: Reaction, alert: Alert) -> Wishes:
    name, of = alert.labels.get("alertname", "?"), f"{policy.namespace}/{policy.name}"
    because = f"alert '{name}' fires, and reaction '{reaction.name}' of AlertPolicy {of}"
    lasts_s = _lasts_s(reaction)
    match reaction.action:
        case ReactionKind.HOLD_ROLLOUT:
            why = f"{because} holds rollouts while it does, {duration_text(lasts_s)} at most"
            return Wishes(holds=(Hold(alert.since_s + lasts_s, why),))
        case ReactionKind.SCALE_UP:
            assert reaction.workers is not None, "the schema asks for it"
            why = f"{because} asks for {reaction.workers} while it does, {duration_text(lasts_s)} at most"
            return Wishes(floors=(Floor(reaction.workers, alert.since_s + lasts_s, why),))
        case ReactionKind.DIAGNOSE:
            return Wishes(question=Question(name, alert.since_s, of))
