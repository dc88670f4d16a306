"""A policy over time: what is told, once, and in which words."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from controllers.alerting.memory import changed_rows, from_rows, from_status, newest
from controllers.plans.alerting import payloads, status
from controllers.plans.alerting.book import (
    Book,
    Policy,
    begin,
    delivered,
    failed,
    fitting,
    hear,
    known_as,
    look,
    next_look_s,
    notices,
)
from controllers.plans.alerting.inbound import Heard, MessageRefused, belongs, exporter, read
from controllers.plans.alerting.incidents import Sight
from controllers.plans.alerting.notices import Notice
from controllers.plans.alerting.topology import Reach, Topology, part_of
from crds.alert_policy import Metric
from crds.alert_status import DELIVERIES_SHOWN, AlertPolicyStatus
from tests.plans.alerting.build import DOWN, HOOK, facts, fleet, policy, sight, spec


class Life:
    """A policy that is looked at again and again; a receiver takes what is due unless it is broken."""

    def __init__(self, asked: Policy, book: Book | None = None) -> None:
        self.policy, self.book, self.sight = asked, book or Book(), sight(fleet())
        self.sent: list[tuple[float, str, str, str]] = []
        self.works = True

    def at(self, now_s: float, *down: str) -> list[Notice]:
        known = [facts(f"s{n}", gauges={Metric.UNSERVABLE: float(f"s{n}" in down)}) for n in range(4)]
        self.book = look(self.policy, self.book, known, self.sight, now_s)
        found = notices(self.policy, self.book, now_s)
        for one in found:
            if self.works:
                self.book = delivered(self.book, one, now_s)
                self.sent.append((now_s, one.receiver.name, one.status, one.reason))
            else:
                self.book = failed(self.book, one, "503", now_s)
        return found

    @property
    def pages(self) -> list[tuple[float, str, str]]:
        return [(at_s, name, said) for at_s, name, said, reason in self.sent]


def test_one_incident_is_one_page_and_one_word_that_it_is_over() -> None:
    life = Life(policy())
    for now_s in range(0, 600, 15):
        life.at(now_s, *(("s0",) if 30 <= now_s < 300 else ()))
    assert life.pages == [(45, "hook", "firing"), (300, "hook", "resolved")]
    assert not life.book.incidents


def test_looking_again_at_the_same_changes_nothing() -> None:
    life = Life(policy())
    for now_s in (0, 15, 30):
        life.at(now_s, "s0")
    before = life.book
    life.at(45, "s0")
    assert life.book is before


def test_alerts_that_come_later_join_and_are_told_once_an_interval() -> None:
    life = Life(policy(grouping={"by": ["incident"], "wait": "1s", "interval": "5m", "repeat": "4h"}))
    for now_s in range(0, 900, 15):
        life.at(now_s, "s0", *(["s1", "s2", "s3"] if now_s >= 60 else []))
    (first, again) = life.sent
    assert first == (15, "hook", "firing", "it is new")
    assert again[0] >= 315
    assert again[3] == "other alerts belong to it now"
    assert len(life.book.incidents) == 1
    assert "gateway" in str(next(iter(life.book.incidents.values())).root)


def test_a_cause_that_shows_itself_after_its_consequences_opens_no_second_incident() -> None:
    life = Life(policy(receive={"matchers": []}))
    for now_s in (0, 15, 30):
        life.at(now_s, "s0")
    node = read(message(labels={"alertname": "NodeDown", "node": "n0", "severity": "critical"}))
    life.book = hear(life.book, node, 40.0)
    life.at(45, "s0")
    assert len(life.sent) == 1
    assert len(life.book.incidents) == 1
    (incident,) = life.book.incidents.values()
    assert len(incident.members) == 2


def test_it_is_told_at_once_when_it_got_worse_and_to_those_who_were_not_told_before() -> None:
    slow = {"name": "slow", "severity": "P2", "metric": "workersMissing", "threshold": {"above": "0"}}
    others = [HOOK, {"name": "pager", "webhook": {"url": "https://pager.example"}}]
    routes = [{"severity": "P2", "receivers": ["hook"]}, {"severity": "P0", "receivers": ["pager", "hook"]}]
    life = Life(policy(DOWN, slow, receivers=others, routes=routes))
    for now_s, down in ((0, 0.0), (15, 0.0), (30, 1.0)):
        known = [facts("s0", gauges={Metric.UNSERVABLE: down, Metric.WORKERS_MISSING: 1.0})]
        life.book = look(life.policy, life.book, known, life.sight, now_s)
        for one in notices(life.policy, life.book, now_s):
            life.book = delivered(life.book, one, now_s)
            life.sent.append((now_s, one.receiver.name, one.status, one.reason))
    assert life.sent == [
        (15, "hook", "firing", "it is new"),
        (30, "pager", "firing", "it is new"),
        (30, "hook", "firing", "it is P0 now, P2 before"),
    ]


def test_a_receiver_that_is_away_is_tried_with_growing_patience_and_told_once_it_is_back() -> None:
    life = Life(policy())
    life.works = False
    tries = [now_s for now_s in range(0, 400) if life.at(now_s, "s0")]
    assert tries == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    (incident,) = life.book.incidents.values()
    assert incident.deliveries["hook"].attempts == 9
    assert [one.reason for one in status.troubles(life.policy, [], life.book, None)] == ["NotDelivered"]
    life.works = True
    for now_s in range(400, 700):
        life.at(now_s, "s0")
    assert [said for _, _, said in life.pages] == ["firing"]
    assert status.troubles(life.policy, [], life.book, None) == []


def test_a_receiver_that_is_taken_out_of_the_policy_stalls_it_no_more() -> None:
    life = Life(policy())
    life.works = False
    for now_s in (0, 1, 2, 4):
        life.at(now_s, "s0")
    life.works, life.policy = True, policy(receivers=[HOOK | {"name": "other"}])
    for now_s in (15, 30):
        life.at(now_s, "s0")
    assert life.pages == [(15, "other", "firing")]
    assert status.troubles(life.policy, [], life.book, None) == []
    assert status.fields(life.policy, life.book)["undelivered"] == 0
    assert {one.attempts for each in life.book.incidents.values() for one in each.deliveries.values()} == {0}


def test_a_receiver_that_was_only_tried_is_not_told_what_no_route_gives_it() -> None:
    slow = {"name": "slow", "severity": "P2", "metric": "workersMissing", "threshold": {"above": "0"}}
    routes = [{"severity": "P0", "receivers": ["hook"]}, {"severity": "P2", "receivers": []}]
    asked, view = policy(DOWN, slow, routes=routes), sight(fleet())

    def seen(book: Book, down: float, now_s: float) -> Book:
        known = [facts("s0", gauges={Metric.UNSERVABLE: down, Metric.WORKERS_MISSING: 1.0})]
        return look(asked, book, known, view, now_s)

    book = seen(seen(Book(), 1.0, 0.0), 1.0, 15.0)
    (first,) = notices(asked, book, 15.0)
    tried, told = failed(book, first, "503", 15.0), delivered(book, first, 15.0)
    assert notices(asked, seen(tried, 0.0, 900.0), 900.0) == []
    assert [one.reason for one in notices(asked, seen(told, 0.0, 900.0), 900.0)] == ["other alerts belong to it now"]


def test_a_clock_that_is_set_back_puts_no_try_off() -> None:
    life = Life(policy())
    life.works = False
    for now_s in (7000, 7001):
        life.at(now_s, "s0")
    life.works = True
    life.at(3402, "s0")
    assert life.pages == [(3402, "hook", "firing")]


def silence(starts: str, ends: str) -> dict[str, Any]:
    """Of all services, on the first of all days."""
    return {
        "name": "night",
        "matchers": [{"label": "service", "value": "s*"}],
        "starts": f"1970-01-01T{starts}Z",
        "ends": f"1970-01-01T{ends}Z",
    }


def test_silences_hold_while_they_last_and_a_page_follows_when_they_end() -> None:
    life = Life(policy(silences=[silence("00:00:00", "00:02:00")]))
    for now_s in range(0, 180, 15):
        life.at(now_s, "s0")
    assert life.pages == [(120, "hook", "firing")]


def test_a_policy_that_looks_seldom_looks_when_a_silence_begins_and_when_it_ends() -> None:
    seldom = policy(silences=[silence("00:10:00", "00:20:00")], interval="6h")
    assert [next_look_s(seldom, Book(), now_s) for now_s in (0.0, 600.0, 1200.0)] == [600.0, 1200.0, 22_800.0]


def test_an_inhibited_alert_is_not_told_and_a_source_never_inhibits_itself() -> None:
    minor = {"name": "minor", "severity": "P2", "metric": "workersMissing", "threshold": {"above": "0"}}
    rule = {
        "source": [{"label": "severity", "value": "P0"}],
        "target": [{"label": "alertname", "value": "*"}],
        "equal": ["service"],
    }
    life = Life(policy(DOWN, minor, inhibitions=[rule]))
    known = [facts("s0", gauges={Metric.UNSERVABLE: 1.0, Metric.WORKERS_MISSING: 1.0})]
    known += [facts("s1", gauges={Metric.UNSERVABLE: 0.0, Metric.WORKERS_MISSING: 1.0})]
    for now_s in (0.0, 15.0):
        life.book = look(life.policy, life.book, known, life.sight, now_s)
    assert list(life.book.muted.values()) == ["inhibited by down"]
    told = [{one.labels["alertname"] for one in notice.alerts} for notice in notices(life.policy, life.book, 15.0)]
    assert sorted(map(sorted, told)) == [["down"], ["minor"]] or told == [{"down", "minor"}]


def test_grouping_by_labels_makes_a_group_of_each_value_and_consequences_follow_their_cause() -> None:
    by_service = {"by": ["service"], "wait": "1s"}
    life = Life(policy(grouping=by_service, receive={"matchers": []}))
    node = message(labels={"alertname": "NodeDown", "node": "n0", "severity": "critical"})
    life.book = hear(life.book, read(node), 0.0)
    for now_s in (0, 15):
        life.at(now_s, "s0", "s1")
    # s0 and s1 both have workers on n0, which is down itself: only the node is told.
    assert len(life.sent) == 1
    assert set(life.book.muted.values()) == {"follows from node/n0"}


@pytest.mark.parametrize("by", [["incident"], ["incident", "pod"], ["pod"]])
def test_alerts_that_have_nothing_to_do_with_each_other_are_not_compared_each_with_each(
    by: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()

    class Counted(Reach):
        def __init__(self, topology: Topology) -> None:
            super().__init__(topology)
            self.upstream = counted(self.upstream)  # type: ignore[assignment]
            self.downstream = counted(self.downstream)  # type: ignore[assignment]

    def counted(whole: Any) -> Any:
        def count(*args: Any) -> Any:
            asked["calls"] += 1
            return whole(*args)

        return count

    def storm(name: str) -> list[Heard]:
        labels = [{"alertname": "NotReady", "namespace": "demo", "pod": f"{name}-{n}"} for n in range(300)]
        return [one for each in labels for one in read(message(labels=each))]

    monkeypatch.setattr("controllers.plans.alerting.incidents.part_of", counted(part_of))
    life = Life(policy(receive={"matchers": []}, grouping={"by": by, "wait": "1s"}))
    life.sight = Sight(Counted(fleet()))
    for heard_s, name in ((0.0, "first"), (20.0, "second")):
        life.book = hear(life.book, storm(name), heard_s)
        for after_s in (0, 5):
            life.at(heard_s + after_s)
    assert len(life.book.incidents) == 600
    assert asked["calls"] < 600 * 50


def test_a_restart_from_the_rows_or_from_the_status_pages_nobody_again() -> None:
    life = Life(policy())
    for now_s in (0, 15, 30):
        life.at(now_s, "s0", "s1")
    rows, gone = changed_rows(Book(), life.book)
    assert not gone
    stored = from_rows(rows, life.book.epoch)
    assert (stored.alerts, stored.incidents) == (life.book.alerts, life.book.incidents)
    shown = AlertPolicyStatus.model_validate(json.loads(json.dumps(status.fields(life.policy, life.book))))
    for book in (stored, from_status(life.policy, shown, 45.0)):
        again = Life(policy(), book)
        for now_s in (45, 60, 75):
            again.at(now_s, "s0", "s1")
        assert again.sent == []
        again.at(90)
        assert [said for _, _, said in again.pages] == ["resolved"]


def test_alerts_as_earlier_releases_wrote_them_down_are_remembered() -> None:
    life = Life(policy())
    life.at(10, "s0")
    life.at(20)
    ((kind, id_, line),) = (row for row in changed_rows(Book(), life.book)[0] if row[0] == "alert")
    old = json.loads(line) | {"penalty": 1.0, "penalty_s": 10.0}
    del old["fired_s"]
    assert from_rows([(kind, id_, json.dumps(old))], 1).alerts == life.book.alerts


def test_a_group_of_several_labels_is_known_again_from_a_status_whose_keys_were_sorted() -> None:
    asked = policy(grouping={"by": ["service", "alertname"], "wait": "1s"}, receive={"matchers": []})

    def heard(pod: str) -> list[Heard]:
        return read(message(labels={"alertname": "X", "namespace": "demo", "service": "s0", "pod": pod}))

    life = Life(asked)
    life.book = hear(life.book, heard("a"), 0.0)
    for now_s in (0, 15):
        life.at(now_s)
    shown = AlertPolicyStatus.model_validate(json.loads(json.dumps(status.fields(asked, life.book), sort_keys=True)))
    again = Life(asked, from_status(asked, shown, 20.0))
    again.book = hear(again.book, heard("b"), 21.0)
    for now_s in (22, 40):
        again.at(now_s)
    assert again.book.incidents.keys() == life.book.incidents.keys()


def restarted(life: Life, now_s: float, how: str) -> Book:
    """As another operator begins: with all the rows, or with the status alone."""
    if how == "rows":
        return from_rows(changed_rows(Book(), life.book)[0], life.book.epoch)
    shown = AlertPolicyStatus.model_validate(json.loads(json.dumps(status.fields(life.policy, life.book))))
    return from_status(life.policy, shown, now_s)


@pytest.mark.parametrize("how", ["rows", "status"])
def test_a_receiver_that_may_have_a_page_is_told_that_it_is_over(how: str) -> None:
    """The operator was stopped while it sent."""
    life = Life(policy())
    life.works = False
    life.at(0, "s0")
    life.book = look(life.policy, life.book, [facts("s0", gauges={Metric.UNSERVABLE: 1.0})], life.sight, 15)
    (page,) = notices(life.policy, life.book, 15)
    life.book = begin(life.book, page) or life.book
    assert begin(life.book, page) is life.book, "it is written once"
    life.book = restarted(life, 20, how)
    life.works = True
    life.at(30)
    assert status.fields(life.policy, life.book)["undelivered"] == 0
    assert life.pages == [(30, "hook", "resolved")]
    life.at(100)
    assert not life.book.incidents


@pytest.mark.parametrize(
    ("doubts", "told"), [([False], []), ([True], ["resolved"]), ([True, False], ["resolved"]), ([False, False], [])]
)
def test_only_what_was_surely_refused_needs_no_last_word(doubts: list[bool], told: list[str]) -> None:
    life = Life(policy())
    life.book = look(life.policy, life.book, [facts("s0", gauges={Metric.UNSERVABLE: 1.0})], life.sight, 0)
    for at, doubtful in enumerate(doubts):
        now_s = 15.0 + 15 * at
        life.book = look(life.policy, life.book, [facts("s0", gauges={Metric.UNSERVABLE: 1.0})], life.sight, now_s)
        (page,) = notices(life.policy, life.book, now_s)
        life.book = failed(begin(life.book, page) or life.book, page, "x", now_s, doubtful=doubtful)
    life.at(100)
    assert [said for _, _, said in life.pages] == told


def test_a_page_that_waited_until_all_was_over_is_not_sent() -> None:
    life = Life(policy())
    life.works = False
    life.at(0, "s0")
    (page,) = life.at(15, "s0")
    life.at(30)
    assert begin(life.book, page) is None


@pytest.mark.parametrize("how", ["rows", "status"])
def test_the_last_word_names_its_alerts_however_late_it_is_and_whoever_says_it(how: str) -> None:
    life = Life(policy())
    for now_s in (0, 15, 30):
        life.at(now_s, "s0", "s1")
    life.works = False
    life.at(45, "s1")
    for now_s in range(60, 6 * 3600, 600):
        life.at(now_s)
    life.book = restarted(life, 6 * 3600, how)
    life.works = True
    (over,) = life.at(6 * 3600)
    assert over.status == "resolved"
    assert sorted(one.labels["service"] for one in over.alerts) == ["s0", "s1"]
    assert {one["status"] for one in payloads.webhook(over, "demo", "watch")["alerts"]} == {"resolved"}
    for now_s in (6 * 3600 + 100, 6 * 3600 + 200):
        life.at(now_s)
    assert not life.book.incidents
    assert not life.book.alerts, "they go with their incident"


def test_receivers_that_are_exchanged_while_an_incident_lasts_do_not_outgrow_the_status() -> None:
    def called(*names: str) -> Policy:
        return policy(receivers=[HOOK | {"name": name} for name in names])

    before, now = [f"a{n}" for n in range(10)], [f"b{n}" for n in range(10)]
    life = Life(called(*before))
    for now_s in (0, 15):
        life.at(now_s, "s0")
    life.policy = called(*now)
    for now_s in (30, 45):
        life.at(now_s, "s0")
    shown = AlertPolicyStatus.model_validate(status.fields(life.policy, life.book))
    (incident,) = shown.incidents or ()
    told = [one.receiver for one in incident.deliveries or ()]
    assert (len(told), told[:10]) == (DELIVERIES_SHOWN, now)


def test_the_memory_with_the_higher_epoch_is_believed() -> None:
    old, new = Book(epoch=3), Book(epoch=4)
    assert newest(old, new) is new
    assert newest(new, old) is new
    assert newest(None, old) is old


def test_any_order_of_looks_restarts_and_failures_tells_each_receiver_of_an_incident_once() -> None:
    for seed in range(40):
        rng = random.Random(seed)
        life = Life(policy())
        down: set[str] = set()
        firsts: dict[tuple[str, str], int] = {}
        for now_s in range(0, 3000, 15):
            if rng.random() < 0.1:
                down ^= {f"s{rng.randrange(4)}"}
            life.works = rng.random() < 0.6
            for one in life.at(now_s, *down):
                if life.works and one.first:
                    firsts[one.place] = firsts.get(one.place, 0) + 1
            if rng.random() < 0.05:
                life.book = from_rows(changed_rows(Book(), life.book)[0], life.book.epoch)
        assert set(firsts.values()) <= {1}


# --- messages -------------------------------------------------------------------------------------------------------
def message(status: str = "firing", labels: dict[str, str] | None = None, **fields: Any) -> bytes:
    one = {"status": status, "labels": labels or {"alertname": "x"}, "annotations": {"summary": "y"}}
    return json.dumps({"version": "4", "alerts": [one]} | fields).encode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"nonsense", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "version"),
        (b'{"version":"4"}', "not a list"),
        (b'{"version":"4","alerts":[7]}', "no status"),
        (b'{"version":"4","alerts":[{"status":"firing"}]}', "no labels"),
        (b'{"version":"4","alerts":[{"status":"firing","labels":{"a":7}}]}', "object of texts"),
        (b'{"version":"4","alerts":[' + b"{}," * 20_001 + b"{}]}", "20000 are allowed"),
    ],
)
def test_what_is_no_message_of_an_alertmanager_is_refused_with_a_sentence(body: bytes, says: str) -> None:
    with pytest.raises(MessageRefused, match=says):
        read(body)


def test_labels_that_a_prometheus_adds_make_no_second_alert() -> None:
    life = Life(policy(receive={"matchers": []}))
    life.at(0, "s0")
    (ours,) = life.book.alerts.values()
    theirs = dict(ours.labels) | {"cluster": "a", "prometheus": "monitoring/k8s"}

    def told(said: str) -> list[Heard]:
        return [known_as(life.policy, life.book, one) for one in read(message(said, labels=theirs))]

    assert told("firing")[0].fingerprint == ours.fingerprint
    life.book = hear(life.book, told("firing"), 5.0)
    assert len(life.book.alerts) == 1
    life.at(10)
    (held,) = life.book.alerts.values()
    assert held.firing, "the Alertmanager still says so"
    life.policy = policy(DOWN | {"name": "renamed"}, receive={"matchers": []})
    life.at(12)
    life.book = hear(life.book, told("resolved"), 15.0)
    life.at(20)
    assert not next(iter(life.book.alerts.values())).firing, "also of a rule that is gone since"


def test_alerts_of_others_whose_labels_are_like_ours_are_told_apart_by_all_of_them() -> None:
    def foreign(pod: str, policy: str) -> Heard:
        labels = {"alertname": "PolicyViolation", "namespace": "demo", "policy": policy, "service": "web", "pod": pod}
        (heard,) = read(message(labels=labels))
        return known_as(mine, Book(), heard)

    mine = policy(receive={"matchers": []})
    found = {foreign(pod, name).fingerprint for pod in ("a", "b") for name in ("require-labels", "watch")}
    assert len(found) == 4


def test_labels_that_a_rule_gets_reach_alerts_that_fire_and_those_that_are_remembered() -> None:
    life = Life(policy())
    for now_s in (0, 15):
        life.at(now_s, "s0", "s1")
    life.at(30, "s0")
    life.policy = policy(DOWN | {"labels": {"team": "shop"}})
    life.at(45, "s0")
    assert {one.state.value: one.labels.get("team") for one in life.book.alerts.values()} == {
        "firing": "shop",
        "resolved": "shop",
    }
    before = life.book
    life.at(60, "s0")
    assert life.book is before


def test_alerts_go_to_policies_of_their_namespace_and_all_to_those_of_the_platform() -> None:
    (node,) = read(message(labels={"alertname": "x", "node": "n0"}))
    (mine,) = read(message(labels={"alertname": "x", "namespace": "demo"}))
    taking, here, above = (
        spec(receive={"matchers": [{"label": "alertname", "value": "x"}]}),
        ("demo", "a"),
        ("sys", "p"),
    )
    assert [belongs(one, exporter(one), taking, here, "sys") for one in (node, mine)] == [False, True]
    assert [belongs(one, exporter(one), taking, above, "sys") for one in (node, mine)] == [True, True]
    assert not belongs(mine, None, spec(), here, "sys")
    assert not belongs(mine, None, spec(receive={"matchers": [{"label": "alertname", "value": "z*"}]}), here, "sys")


def test_an_exported_alert_comes_back_to_the_policy_of_the_rule_and_to_no_other() -> None:
    (back,) = read(message(labels={"alertname": "down", "namespace": "demo", "policy": "a", "service": "chat"}))
    assert exporter(back) == ("demo", "a")
    all_of_them, others = spec(receive={"matchers": []}), {"matchers": [{"label": "alertname", "value": "z*"}]}
    takers = [("demo", "a"), ("demo", "b"), ("sys", "p")]
    assert [belongs(back, exporter(back), all_of_them, one, "sys") for one in takers] == [True, False, False]
    assert belongs(back, exporter(back), spec(receive=others), ("demo", "a"), "sys"), "whatever else it receives"
    assert not belongs(back, exporter(back), spec(), ("demo", "a"), "sys")


def test_an_operator_that_takes_over_does_not_resolve_what_an_alertmanager_repeats_seldom() -> None:
    life = Life(policy(receive={"matchers": []}))
    life.book = hear(life.book, read(message(labels={"alertname": "NodeDown"})), 0.0)
    for now_s in (5, 20, 35):
        life.at(now_s)
    assert [said for _, _, said in life.pages] == ["firing"]
    shown = AlertPolicyStatus.model_validate(json.loads(json.dumps(status.fields(life.policy, life.book))))
    day = 28 * 3600
    again = Life(policy(receive={"matchers": []}), from_status(life.policy, shown, day))
    again.at(day + 60)
    assert [one.firing for one in again.book.alerts.values()] == [True]
    assert again.book.incidents.keys() == life.book.incidents.keys()


def said(status: str, n: int) -> Heard:
    return read(message(status, labels={"alertname": f"x{n}"}))[0]


def test_a_policy_holds_a_bounded_number_of_alerts_and_always_hears_that_one_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controllers.plans.alerting.book.EXTERNAL_MOST", 2)
    book = hear(Book(), [said("firing", 0)], 0.0)
    message_of = [said("firing", 1), said("firing", 2), said("firing", 2), said("resolved", 0), said("resolved", 9)]
    assert fitting(book, message_of) == [said("firing", 1), said("resolved", 0), said("resolved", 9)]
    assert fitting(hear(book, [said("firing", 1)], 0.0), [said("firing", 1)]) == [said("firing", 1)]


def notice(**fields: Any) -> Notice:
    life = Life(policy(DOWN | {"runbook": "Look at <the pods>.", "summary": "Down"}))
    life.at(0, "s0")
    return replace(life.at(15, "s0")[0], **fields)


def test_the_webhook_message_is_alertmanagers() -> None:
    body = payloads.webhook(notice(), "demo", "watch")
    assert set(body) == {
        "version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels",
        "commonAnnotations", "externalURL", "alerts",
    }  # fmt: skip
    assert body["version"] == "4"
    assert body["alerts"][0]["endsAt"] == payloads.NEVER
    assert body["alerts"][0]["annotations"]["runbook"] == "Look at <the pods>."
    assert body["commonAnnotations"]["summary"] == "P0 service/demo/s0: 1 alert (down)"
    # What we send, we would take.
    assert len(read(json.dumps(body).encode())) == 1


def test_pagerduty_gets_one_key_for_an_incident_and_slack_no_mention() -> None:
    told = notice()
    event = payloads.pagerduty(told, "demo", "watch", "key")
    assert (event["event_action"], event["payload"]["severity"]) == ("trigger", "critical")
    over = payloads.pagerduty(replace(told, status="resolved"), "demo", "watch", "key")
    assert over == {"routing_key": "key", "event_action": "resolve", "dedup_key": event["dedup_key"]}
    text = json.dumps(payloads.slack(told, "demo", "watch"))
    assert "First: Look at &lt;the pods&gt;." in text
    assert "<" not in text


def test_a_long_message_is_cut_and_says_so() -> None:
    told = notice()
    many = replace(told, alerts=tuple(replace(told.alerts[0], fingerprint=f"{n}") for n in range(250)))
    body = payloads.webhook(many, "demo", "watch")
    assert (len(body["alerts"]), body["truncatedAlerts"]) == (100, 150)
