"""What alerts hold: rollouts of the services that they are about, while they fire, for a day at most."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controllers.alerting.holds import HoldBoard
from controllers.plans.alerting.alerts import Alert, State
from controllers.plans.alerting.book import Book, Policy
from controllers.plans.alerting.reactions import LONGEST_S, holds
from controllers.runtime.interface import Key
from crds.alert_policy import AlertPolicySpec
from crds.alert_status import AlertSeverity

LABELS = {"alertname": "CheckoutBroken", "namespace": "demo", "service": "chat", "team": "shop"}
ALERT = Alert("ab12", LABELS, AlertSeverity.P1, State.FIRING, since_s=1000.0, external=True)
SPEC: dict[str, Any] = {
    "receive": {"matchers": []},
    "reactions": [{"name": "stop", "matchers": [{"label": "team", "value": "shop"}]}],
}
POLICY = Policy("demo", "watch", AlertPolicySpec.model_validate(SPEC))
CHAT = Key("InferenceService", "demo", "chat")


def held(alert: Alert, now_s: float = 1060.0, policy: Policy = POLICY) -> dict[tuple[str, str], str]:
    return dict(holds(policy, replace(Book(), alerts={alert.fingerprint: alert}), now_s))


def test_a_firing_alert_holds_the_rollouts_of_its_service() -> None:
    assert held(ALERT) == {
        ("demo", "chat"): "alert 'CheckoutBroken' fires, and reaction 'stop' of AlertPolicy demo/watch holds rollouts "
        "while it does, 1d at most"
    }


@pytest.mark.parametrize(
    "alert",
    [
        replace(ALERT, state=State.PENDING),
        replace(ALERT, state=State.RESOLVED),
        replace(ALERT, labels={**LABELS, "team": "search"}),
        replace(ALERT, labels={name: value for name, value in LABELS.items() if name != "service"}),
    ],
    ids=["not yet", "over", "another's", "of no service"],
)
def test_others_hold_nothing(alert: Alert) -> None:
    assert held(alert) == {}


def test_a_policy_without_reactions_only_tells() -> None:
    plain = AlertPolicySpec.model_validate({"receive": {"matchers": []}})
    assert held(ALERT, policy=Policy("demo", "watch", plain)) == {}


def test_after_a_day_an_alert_that_nobody_resolves_holds_nothing_more() -> None:
    assert held(ALERT, ALERT.since_s + LONGEST_S - 1)
    assert held(ALERT, ALERT.since_s + LONGEST_S) == {}


def test_a_service_is_woken_when_its_hold_begins_and_ends_and_not_in_between() -> None:
    woken: list[Key] = []
    board = HoldBoard(woken.append)
    for _ in range(3):
        board.put(("demo", "watch"), {("demo", "chat"): "because"})
    assert (board.of(CHAT), woken) == ("because", [CHAT])
    board.put(("demo", "other"), {("demo", "chat"): "also"})
    board.put(("demo", "watch"), {})
    assert board.of(CHAT) == "also"
    board.put(("demo", "other"), {})
    assert board.of(CHAT) is None
    assert len(woken) == 4
