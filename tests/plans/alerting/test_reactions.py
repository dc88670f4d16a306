"""What alerts ask of the services that they are about: while they fire, for a bounded time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from controllers.alerting.wishes import WishBoard
from controllers.plans.alerting.alerts import Alert, State
from controllers.plans.alerting.book import Book, Policy
from controllers.plans.alerting.reactions import LONGEST_S, next_end_s, wishes
from controllers.plans.alerting.wishes import NOTHING, Floor, Hold, Question, Wishes, floor_now, hold_now
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
    """Why, by service whose rollout waits."""
    found = wishes(policy, replace(Book(), alerts={alert.fingerprint: alert}), now_s)
    return {place: wish.holds[0].why for place, wish in found.items() if wish.holds}


def asked(reaction: dict[str, Any], alert: Alert = ALERT, now_s: float = 1060.0) -> Wishes:
    """What one reaction to one alert asks of the service."""
    matchers = {"name": "more", "matchers": [{"label": "team", "value": "shop"}]}
    spec = AlertPolicySpec.model_validate({"receive": {"matchers": []}, "reactions": [matchers | reaction]})
    book = replace(Book(), alerts={alert.fingerprint: alert})
    return wishes(Policy("demo", "watch", spec), book, now_s).get(("demo", "chat"), NOTHING)


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


def test_a_hold_ends_by_itself_though_nobody_looks_at_the_alert_again() -> None:
    first, second = Hold(500.0, "first"), Hold(900.0, "second")
    assert asked({"duration": "10m"}).holds[0].until_s == ALERT.since_s + 600
    both = Wishes(holds=(first,)).and_those(Wishes(holds=(second,)))
    assert [hold_now(both, now_s) for now_s in (499.0, 500.0, 900.0)] == [first, second, None]


def test_the_next_end_is_that_of_the_reaction_that_lasts_shortest_of_those_that_still_do() -> None:
    reactions = [
        {"name": name, "matchers": [{"label": "team", "value": team}], "duration": duration}
        for name, team, duration in (("short", "shop", "10m"), ("long", "shop", "1h"), ("other", "search", "5m"))
    ]
    policy = Policy("demo", "watch", AlertPolicySpec.model_validate(SPEC | {"reactions": reactions}))
    book = replace(Book(), alerts={"ab12": ALERT, "cd34": replace(ALERT, fingerprint="cd34", state=State.PENDING)})
    found = [next_end_s(policy, book, ALERT.since_s + after_s) for after_s in (0, 599, 600, 3600)]
    assert found == [1600.0, 1600.0, 4600.0, math.inf]


def test_a_firing_alert_asks_for_workers_until_its_time_is_up() -> None:
    more = {"action": "scaleUp", "workers": 4, "duration": "30m"}
    (floor,) = asked(more).floors
    assert (floor.workers, floor.until_s) == (4, ALERT.since_s + 1800)
    assert floor.why == (
        "alert 'CheckoutBroken' fires, and reaction 'more' of AlertPolicy demo/watch asks for 4 while it does, "
        "30m at most"
    )
    assert asked(more, now_s=ALERT.since_s + 1799).floors
    assert asked(more, now_s=ALERT.since_s + 1800) == NOTHING
    assert asked(more, replace(ALERT, state=State.RESOLVED)) == NOTHING


def test_no_reaction_lasts_longer_than_a_day() -> None:
    long = {"action": "scaleUp", "workers": 4, "duration": "30d"}
    assert asked(long).floors[0].until_s == ALERT.since_s + LONGEST_S
    assert asked({"action": "diagnose"}, now_s=ALERT.since_s + LONGEST_S) == NOTHING


def test_a_firing_alert_asks_what_is_wrong() -> None:
    assert asked({"action": "diagnose"}).question == Question("CheckoutBroken", 1000.0, "demo/watch")


def test_of_many_wishes_the_highest_floor_whose_time_is_not_up_counts_and_the_newest_question() -> None:
    low, high = Floor(3, 900.0, "low"), Floor(5, 500.0, "high")
    old, new = Question("a", 10.0, "demo/a"), Question("b", 20.0, "demo/b")
    both = Wishes(floors=(low,), question=new).and_those(Wishes(floors=(high,), question=old))
    assert both.question == new
    assert [floor_now(both, now_s) for now_s in (499.0, 500.0, 900.0)] == [high, low, None]


def test_a_service_is_woken_when_its_wishes_change_and_not_in_between() -> None:
    woken: list[Key] = []
    board = WishBoard(woken.append)
    for _ in range(3):
        board.put(("demo", "watch"), {("demo", "chat"): Wishes(holds=(Hold(900.0, "because"),))})
    assert (board.of(CHAT).holds, woken) == ((Hold(900.0, "because"),), [CHAT])
    board.put(("demo", "other"), {("demo", "chat"): Wishes(holds=(Hold(900.0, "also"),))})
    board.put(("demo", "watch"), {})
    assert board.of(CHAT).holds == (Hold(900.0, "also"),)
    board.put(("demo", "other"), {})
    assert board.of(CHAT) == NOTHING
    assert len(woken) == 4
    board.put(("demo", "watch"), {("demo", "chat"): Wishes(floors=(Floor(3, 900.0, "low"),))})
    board.put(("demo", "watch"), {("demo", "chat"): Wishes(floors=(Floor(4, 900.0, "more"),))})
    assert len(woken) == 6
