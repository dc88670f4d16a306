"""The whole controller: services in trouble, receivers that take or refuse, operators that come and go."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from controllers.alerting import desk
from controllers.alerting.memory import from_rows
from controllers.alerting.wishes import WishBoard
from controllers.history.store import Store
from controllers.plans.alerting.book import Book, Policy
from controllers.plans.alerting.wishes import NOTHING
from controllers.runtime.interface import Answer, Hook, Key
from controllers.settings import Alerting, Settings
from crds.contract import OPERATOR_PATH_ALERTS
from kube.errors import AnswerError, Conflict, Forbidden, Invalid
from kube.resources import ALERT_POLICIES, CONFIG_MAPS, PROMETHEUS_RULES
from tests.controllers.alerting.receivers import Receiver, receiving
from tests.controllers.alerting.world import World
from tests.waiting import eventually


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "history.sqlite")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as it:
        yield it


def hook(receiver: Receiver, **fields: Any) -> dict[str, Any]:
    return {"name": "hook", "webhook": {"url": receiver.url}} | fields


async def test_a_service_in_trouble_is_one_page_and_one_word_that_it_is_over(world: World, receiver: Receiver) -> None:
    world.service(servable=False)
    world.policy(hook(receiver))
    async with world.operator():
        await eventually(lambda: receiver.told, "a page")
        await eventually(lambda: world.status().get("firing") == 1 and world.status()["undelivered"] == 0, "it shows")
        (incident,) = world.status()["incidents"]
        assert incident["deliveries"][0] | {"time": "", "digest": ""} == {
            "receiver": "hook", "attempts": 0, "said": "firing", "severity": "P0", "time": "", "digest": "",
        }  # fmt: skip
        assert world.reasons() == {"Ready": "Watching"}
        world.service(servable=True)
        await eventually(lambda: len(receiver.came) == 2, "it is over")
        await eventually(lambda: world.status().get("openIncidents") == 0, "no incident is open")
    assert receiver.told == [("firing", incident["id"]), ("resolved", incident["id"])]


@pytest.mark.parametrize("same_disk", [True, False])
async def test_another_operator_goes_on_where_the_first_was_stopped(
    world: World, receiver: Receiver, same_disk: bool, tmp_path: Path
) -> None:
    world.service(servable=False)
    world.policy(hook(receiver))
    async with world.operator():
        await eventually(lambda: world.deliveries(), "it was told")
    incident = world.status()["incidents"][0]["id"]
    async with world.operator(None if same_disk else tmp_path / "another.sqlite") as second:
        await eventually(lambda: second.metrics._desk.books(), "the second operator looked")
        world.service(servable=True)
        await eventually(lambda: len(receiver.came) == 2, "it is over")
    assert receiver.told == [("firing", incident), ("resolved", incident)]


async def test_an_operator_that_is_stopped_while_it_sends_sends_again_under_the_same_key(
    world: World, receiver: Receiver
) -> None:
    receiver.gate = asyncio.Event()
    world.service(servable=False)
    world.policy(hook(receiver))
    async with world.operator():
        await eventually(lambda: receiver.requests, "the message is under way")
    receiver.gate.set()
    async with world.operator():
        await eventually(lambda: len(receiver.requests) == 2 and world.status().get("undelivered") == 0, "told again")
    keys = {one["Idempotency-Key"] for one in receiver.requests}
    assert len(keys) == 1
    assert len(set(receiver.told)) == 1


@pytest.mark.parametrize("same_disk", [True, False])
async def test_who_may_have_a_page_from_an_operator_that_was_stopped_is_told_that_it_is_over(
    world: World, receiver: Receiver, same_disk: bool, tmp_path: Path
) -> None:
    receiver.gate = asyncio.Event()
    world.service(servable=False)
    world.policy(hook(receiver))
    async with world.operator():
        await eventually(lambda: receiver.requests, "the message is under way")
        await eventually(lambda: begun(world), "the status says so")
    receiver.gate.set()
    await eventually(lambda: receiver.came, "it took the page")
    world.service(servable=True)
    async with world.operator(None if same_disk else tmp_path / "another.sqlite"):
        await eventually(lambda: len(receiver.came) == 2, "it is over")
    assert [said for said, _ in receiver.told] == ["firing", "resolved"]
    assert len(receiver.came[1]["alerts"]) == 1


def begun(world: World) -> bool:
    return any(each.get("doubtful") for one in world.status().get("incidents") or () for each in one["deliveries"])


@pytest.mark.parametrize(("status", "doubtful"), [(502, True), (503, False), (404, False), (0, True), (None, False)])
async def test_a_receiver_that_surely_did_not_take_a_page_needs_no_last_word(
    world: World, receiver: Receiver, status: int | None, doubtful: bool
) -> None:
    """0 ends the connection without an answer; None cannot be connected to."""
    receiver.status = status or 0
    world.service(servable=False)
    port = receiver.port if status is not None else 1
    world.policy({"name": "hook", "webhook": {"url": f"http://127.0.0.1:{port}/hook"}})
    async with world.operator():
        await eventually(world.deliveries, "a try")
        assert begun(world) is doubtful


async def test_a_receiver_that_refuses_is_shown_and_told_when_it_takes_again(world: World, receiver: Receiver) -> None:
    receiver.status = 503
    world.service(servable=False)
    world.policy(hook(receiver))
    async with world.operator():
        await eventually(lambda: world.reasons().get("Stalled") == "NotDelivered", "it says so")
        assert "answered 503" in world.status()["conditions"][0]["message"]
        assert world.status()["undelivered"] == 1
        receiver.status = 200
        await eventually(lambda: receiver.told, "it is told")
        await eventually(lambda: world.reasons() == {"Ready": "Watching"}, "it is well again")


async def test_two_policies_and_a_slow_receiver_do_not_wait_for_each_other(world: World, receiver: Receiver) -> None:
    receiver.gate = asyncio.Event()
    world.service(servable=False)
    world.policy(hook(receiver))
    async with receiving() as quick:
        world.policy(hook(quick), name="other")
        async with world.operator():
            await eventually(lambda: quick.told and receiver.requests, "the quick one is told")
            assert not receiver.came


async def test_pagerduty_and_slack_are_told_with_the_keys_of_their_secrets(world: World, receiver: Receiver) -> None:
    world.secret("keys", routing="r0uting", slack=receiver.url)
    pager = {"routingKeySecret": {"name": "keys", "key": "routing"}, "url": receiver.url}
    slack = {"urlSecret": {"name": "keys", "key": "slack"}}
    world.service(servable=False)
    world.policy({"name": "pager", "pagerDuty": pager}, {"name": "team", "slack": slack, "sendResolved": False})
    async with world.operator():
        await eventually(lambda: len(receiver.came) == 2, "both are told")
        world.service(servable=True)
        await eventually(lambda: len(receiver.came) == 3, "PagerDuty hears that it is over")
        await eventually(lambda: world.status().get("undelivered") == 0, "nobody else is owed a word")
    events = [one for one in receiver.came if "routing_key" in one]
    assert [one["event_action"] for one in events] == ["trigger", "resolve"]
    assert {(one["routing_key"], one["dedup_key"]) for one in events} == {("r0uting", events[0]["dedup_key"])}
    (message,) = (one for one in receiver.came if "attachments" in one)
    assert message["text"] == "P0 service/demo/chat: 1 alert (down)"


async def test_a_policy_that_cannot_be_looked_at_stops_no_other(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.service(servable=False)
    world.policy(hook(receiver), name="a")
    world.policy(hook(receiver), name="b")
    whole = desk.look

    def look(policy: Policy, *others: Any) -> Book:
        if policy.name == "a":
            raise ZeroDivisionError
        return whole(policy, *others)

    monkeypatch.setattr(desk, "look", look)
    async with world.operator():
        await eventually(lambda: receiver.told, "the other is told")
    assert receiver.came[0]["groupLabels"]["policy"] == "b"


# --- secrets and addresses ------------------------------------------------------------------------------------------
async def said(world: World) -> str:
    await eventually(lambda: world.deliveries(), "a try")
    (delivery,) = world.deliveries()
    assert "said" not in delivery
    return str(delivery["error"])


async def test_urls_and_tokens_come_from_labelled_secrets(world: World, receiver: Receiver) -> None:
    world.secret("mine", url=receiver.url, token="t0ken")
    key = {"name": "mine"}
    world.service(servable=False)
    world.policy(
        {"name": "hook", "webhook": {"urlSecret": key | {"key": "url"}, "tokenSecret": key | {"key": "token"}}}
    )
    async with world.operator():
        await eventually(lambda: receiver.told, "a page")
    assert receiver.requests[0]["Authorization"] == "Bearer t0ken"


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        (None, "is not in namespace 'demo'"),
        ({"labelled": False, "url": "http://127.0.0.1:1/"}, "has no label foretide.dev/alert-receiver=true"),
        ({"other": "x"}, "has no entry 'url'"),
        ({"url": "ftp://x"}, "not http://host"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_named(world: World, secret: dict[str, Any] | None, says: str) -> None:
    if secret is not None:
        world.secret("mine", **secret)
    world.service(servable=False)
    world.policy({"name": "hook", "webhook": {"urlSecret": {"name": "mine", "key": "url"}}})
    async with world.operator():
        assert says in await said(world)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "[::1]", "0x7f000001"])
async def test_a_receiver_inside_is_refused_unless_it_is_allowed(world: World, receiver: Receiver, host: str) -> None:
    world.settings = Settings()
    world.service(servable=False)
    world.policy({"name": "hook", "webhook": {"url": f"http://{host}:{receiver.port}/secret-path"}})
    async with world.operator():
        error = await said(world)
    assert "is not a public address" in error
    assert "alerting.allowPrivateNetworks" in error
    assert "secret-path" not in error
    assert not receiver.requests


async def test_a_redirect_is_not_followed(world: World, receiver: Receiver) -> None:
    receiver.status, receiver.headers = 307, {"Location": "http://169.254.169.254/latest"}
    world.service(servable=False)
    world.policy(hook(receiver))
    async with world.operator():
        assert "redirects (307), which is not followed" in await said(world)


async def test_a_name_that_changes_its_address_between_two_messages_is_refused_at_the_second(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = ["127.0.0.1"]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (addresses[-1], receiver.port))])
    world.service(servable=False)
    world.policy({"name": "hook", "webhook": {"url": f"http://rebind.example:{receiver.port}/"}})
    async with world.operator():
        await eventually(lambda: receiver.told, "the first is taken")
        addresses.append("169.254.169.254")
        world.service(servable=True)
        await eventually(lambda: any("error" in one for one in world.deliveries()), "the second is refused")
    assert "169.254.169.254, which is not a public address" in world.deliveries()[0]["error"]


# --- Alertmanagers --------------------------------------------------------------------------------------------------
def message(status: str, *names: str) -> bytes:
    alerts = [{"status": status, "labels": {"alertname": name, "namespace": "demo"}} for name in names]
    return json.dumps({"version": "4", "alerts": alerts}).encode()


async def post(it: Hook, headers: Mapping[str, str], body: bytes) -> Answer:
    return await it.refuse(headers) or await it.answer(body)


def names_in(receiver: Receiver) -> set[str]:
    return {one["labels"]["alertname"] for body in receiver.came for one in body["alerts"]}


async def test_an_alertmanager_needs_the_token_and_is_answered_after_its_alerts_were_written_down(
    world: World, receiver: Receiver
) -> None:
    world.secret("token", namespace="foretide-system", token="right")
    world.policy(hook(receiver), receive={"matchers": []})
    right = {"Authorization": "Bearer right"}
    async with world.operator() as wired:
        (it,) = wired.hooks
        assert it.path == OPERATOR_PATH_ALERTS
        # The last is what aiohttp makes of a byte that is no UTF-8.
        for said in ("", "Bearer wrong", "Basic right", "Bearer \udcff"):
            headers = {"Authorization": said} if said else {}
            assert (await post(it, headers, message("firing", "Disk"))).status == 401
        assert (await post(it, right, b"nonsense")).status == 400
        answer = await post(it, right, message("firing", "Disk", "Fan"))
        assert (answer.status, answer.text) == (200, "2\n")
    # Nothing was told yet, perhaps; what was taken is not lost.
    async with world.operator() as wired:
        await eventually(lambda: names_in(receiver) == {"Disk", "Fan"}, "both are told")
        (it,) = wired.hooks
        assert (await post(it, right, message("resolved", "Disk", "Fan"))).status == 200
        await eventually(lambda: receiver.told[-1][0] == "resolved", "both are over")
    assert (await post(it, right, message("firing", "Disk"))).status == 503, "an operator that does not lead"


async def test_nobody_may_send_alerts_unless_a_token_is_named(world: World) -> None:
    world.settings = Settings()
    async with world.operator() as wired:
        (it,) = wired.hooks
        assert (await post(it, {"Authorization": "Bearer "}, message("firing", "x"))).status == 403


async def test_an_alertmanagers_alert_about_a_service_wakes_it_and_holds_its_rollouts_while_it_fires(
    world: World, receiver: Receiver
) -> None:
    woken: list[Key] = []
    world.wishes = WishBoard(woken.append)
    world.secret("token", namespace="foretide-system", token="right")
    stop = {"name": "stop", "matchers": [{"label": "team", "value": "shop"}]}
    world.policy(hook(receiver), receive={"matchers": []}, reactions=[stop])
    chat, right = Key("InferenceService", "demo", "chat"), {"Authorization": "Bearer right"}

    def said(status: str) -> bytes:
        labels = {"alertname": "CheckoutBroken", "namespace": "demo", "service": "chat", "team": "shop"}
        return json.dumps({"version": "4", "alerts": [{"status": status, "labels": labels}]}).encode()

    async with world.operator() as wired:
        (it,) = wired.hooks
        assert (await post(it, right, said("firing"))).status == 200
        assert woken
        assert set(woken) == {chat}
        await eventually(lambda: world.wishes.of(chat).holds, "it is held")
        assert "reaction 'stop' of AlertPolicy demo/watch" in world.wishes.of(chat).holds[0].why
    world.wishes = WishBoard(woken.append)
    async with world.operator() as wired:
        await eventually(lambda: world.wishes.of(chat).holds, "the next leader holds it too")
        before = len(woken)
        (it,) = wired.hooks
        assert (await post(it, right, said("firing"))).status == 200
        assert len(woken) == before, "Alertmanager only repeats itself"
        assert (await post(it, right, said("resolved"))).status == 200
        await eventually(lambda: world.wishes.of(chat) == NOTHING, "it goes on")


async def test_a_policy_that_looks_seldom_holds_no_longer_than_its_reaction_says(world: World) -> None:
    world.service(servable=False)
    stop = {"name": "stop", "matchers": [{"label": "alertname", "value": "down"}], "duration": "3s"}
    world.policy(reactions=[stop], interval="6h")
    chat = Key("InferenceService", "demo", "chat")
    async with world.operator():
        await eventually(lambda: world.wishes.of(chat).holds, "it is held")
        await eventually(lambda: world.wishes.of(chat) == NOTHING, "it goes on")


# --- rules for Prometheus -------------------------------------------------------------------------------------------
async def test_rules_are_written_where_asked_for_and_taken_away_again(world: World) -> None:
    world.service()
    world.policy(export=True)
    world.settings = world.settings.model_copy(update={"alerting": Alerting(rule_labels={"release": "prometheus"})})
    name = "foretide-alerts-watch"
    async with world.operator():
        await eventually(lambda: world.status().get("exported"), "they are written")
        assert world.status()["exported"] == f"PrometheusRule/{name}"
        rule = world.api.now(PROMETHEUS_RULES, "demo", name)
        assert rule is not None
        assert (
            rule["metadata"]["labels"].items()
            >= {"release": "prometheus", "foretide.dev/alert-policy": "watch"}.items()
        )
        assert rule["spec"]["groups"][0]["rules"][0]["alert"] == "down"
        world.policy(export=False)
        await eventually(lambda: world.api.now(PROMETHEUS_RULES, "demo", name) is None, "they are gone")
        assert world.api.now(CONFIG_MAPS, "demo", name) is None


async def test_rules_that_cannot_be_written_are_left_to_the_pauses_of_the_queue(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look of the desk would have the policy reconciled at once, and that would ask for the next look."""
    woken: list[tuple[str, str]] = []
    wake = desk.AlertDesk.wake

    def heard(self: desk.AlertDesk, place: tuple[str, str]) -> None:
        woken.append(place)
        wake(self, place)

    monkeypatch.setattr(desk.AlertDesk, "wake", heard)
    world.api.fail_next("apply", PROMETHEUS_RULES, *(Conflict("held", status_code=409) for _ in range(20)))
    world.service()
    world.policy(export=True)
    async with world.operator():
        await eventually(lambda: world.status().get("exported"), "they are written in the end")
    assert len(woken) < 10, "changes of the policy and its service alone"


@pytest.mark.parametrize(
    "refusal",
    [
        Invalid("denied the request: invalid rule", status_code=422),
        Forbidden("prometheusrules is forbidden", status_code=403),
    ],
)
async def test_rules_that_are_refused_hide_nothing_else_and_are_named(world: World, refusal: AnswerError) -> None:
    world.api.fail_next("apply", PROMETHEUS_RULES, *(refusal for _ in range(10_000)))
    world.service(servable=False)
    world.policy(export=True)
    async with world.operator():
        await eventually(lambda: world.reasons().get("Stalled") == "NotExported", "it says so")
        await firing(world, 1)
        assert str(refusal) in world.status()["conditions"][0]["message"]
        world.policy(export=False)
        await eventually(lambda: world.reasons() == {"Ready": "Watching"}, "nothing is to be written any more")


async def test_somebody_elses_rules_of_that_name_stay_and_are_named(world: World) -> None:
    name = "foretide-alerts-watch"
    world.api.put(PROMETHEUS_RULES, {"metadata": {"namespace": "demo", "name": name}, "spec": {"groups": []}})
    world.service(servable=False)
    world.policy(export=True)
    async with world.operator():
        await eventually(lambda: world.reasons().get("Stalled") == "NotExported", "it says so")
        assert "was not made by Foretide" in world.status()["conditions"][0]["message"]
        await firing(world, 1)
        world.api.remove(PROMETHEUS_RULES, "demo", name)
        await eventually(lambda: world.reasons() == {"Ready": "Watching"}, "it is well again")
    assert world.status()["exported"] == f"PrometheusRule/{name}"


async def test_rules_whose_writer_died_before_it_said_so_are_taken_away_when_nobody_asks_for_them(world: World) -> None:
    name = "foretide-alerts-watch"
    world.service()
    world.policy(export=True)
    async with world.operator():
        await eventually(lambda: world.status().get("exported"), "they are written")
    written = world.api.now(PROMETHEUS_RULES, "demo", name)
    assert written is not None
    policy = world.api.now(ALERT_POLICIES, "demo", "watch")
    assert policy is not None
    policy["status"].pop("exported")
    world.api.put(ALERT_POLICIES, policy)
    world.policy(export=False)
    async with world.operator():
        await eventually(lambda: world.api.now(PROMETHEUS_RULES, "demo", name) is None, "they are gone")


async def test_rules_of_another_policy_of_the_same_name_are_left_alone(world: World) -> None:
    """As an operator meets them whose caches lag behind: the policy that it sees was deleted and made anew."""
    name = "foretide-alerts-watch"
    world.service()
    world.policy(export=False)
    owner = {"apiVersion": "foretide.dev/v1alpha1", "kind": "AlertPolicy", "name": "watch", "uid": "of-the-new-one"}
    labels = {"app.kubernetes.io/managed-by": "foretide"}
    meta = {"namespace": "demo", "name": name, "labels": labels, "ownerReferences": [owner]}
    world.api.put(CONFIG_MAPS, {"metadata": meta, "data": {}})
    async with world.operator():
        await eventually(lambda: world.api.calls["get", "ConfigMap"], "the look for rules of its own")
        await eventually(lambda: world.status().get("observedGeneration"), "the status is written")
    assert world.api.now(CONFIG_MAPS, "demo", name) is not None


async def test_a_service_that_does_not_exist_is_named(world: World) -> None:
    world.policy(services=["chatt"])
    async with world.operator():
        await eventually(lambda: world.reasons().get("Stalled") == "ServiceNotFound", "it says so")
        world.service("chatt")
        world.policy(services=["chatt"], interval="6s")
        await eventually(lambda: world.reasons() == {"Ready": "Watching"}, "it is well again")


# --- what is remembered, and what is not ------------------------------------------------------------------------------
def kept(disk: Path) -> Book | None:
    """Of the one policy `watch` of which anything is known."""
    store = Store(disk)
    names = [name for name in store.alert_policies() if name.startswith("demo/watch/")]
    assert len(names) <= 1
    found = store.alerts(names[0]) if names else None
    store.close()
    return None if found is None else from_rows(found[1], found[0])


def about(book: Book | None) -> set[str]:
    """Services that fire."""
    assert book is not None
    return {one.labels["service"] for one in book.alerts.values() if one.firing}


async def firing(world: World, n: int) -> None:
    await eventually(lambda: world.status().get("firing") == n, f"{n} alerts fire")


async def test_what_a_disk_refused_is_written_with_the_next_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the disk would be as new as the status and know less: after a restart, people were paged again."""
    write = Store.set_alerts

    def refuse(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "set_alerts", refuse)
    world.service("first", servable=False)
    world.policy()
    async with world.operator():
        await firing(world, 1)
        monkeypatch.setattr(Store, "set_alerts", write)
        world.service("second", servable=False)
        await firing(world, 2)
    assert about(kept(world.disk)) == {"first", "second"}


async def test_what_another_operator_said_is_on_ones_own_disk_with_the_first_change(
    world: World, tmp_path: Path
) -> None:
    """It led in between and its status is newer than the disk, which must not be taken for the newest afterwards."""
    world.service("first", servable=False)
    world.policy()
    async with world.operator():
        await firing(world, 1)
    async with world.operator(tmp_path / "another.sqlite"):
        world.service("second", servable=False)
        await firing(world, 2)
    async with world.operator():
        world.service("third", servable=False)
        await firing(world, 3)
    assert about(kept(world.disk)) == {"first", "second", "third"}


async def test_a_status_that_cannot_be_read_stops_no_policy(world: World, receiver: Receiver) -> None:
    """Of another release's rules: the loop of alerts must not end, and the operator with it."""
    world.service(servable=False)
    for name in ("a", "b"):
        world.policy(hook(receiver), name=name)
    strange = world.api.now(ALERT_POLICIES, "demo", "a") or {}
    world.api.put(ALERT_POLICIES, strange | {"status": {"epoch": 7, "alerts": [{"severity": "P9"}]}})
    async with world.operator():
        await eventually(lambda: len(receiver.came) == 2, "both are told")
        await eventually(lambda: (world.status("a").get("epoch") or 0) < 7, "its status is ours again")


async def test_a_policy_that_is_made_anew_tells_anew(world: World, receiver: Receiver) -> None:
    """Gone and back between two looks of the desk."""
    world.service(servable=False)
    world.policy(hook(receiver))
    async with world.operator():
        await eventually(lambda: world.deliveries(), "it was told")
        world.api.remove(ALERT_POLICIES, "demo", "watch")
        world.policy(hook(receiver))
        await eventually(lambda: len(receiver.came) == 2, "the page of the new policy")
    (said, first), (says, second) = receiver.told
    assert (said, says) == ("firing", "firing")
    assert first != second


async def test_a_policy_that_was_made_anew_while_nobody_led_tells_anew(world: World, receiver: Receiver) -> None:
    world.service(servable=False)
    world.policy(hook(receiver))
    async with world.operator():
        await eventually(lambda: world.deliveries(), "it was told")
    world.api.remove(ALERT_POLICIES, "demo", "watch")
    world.policy(hook(receiver))
    async with world.operator():
        await eventually(lambda: len(receiver.came) == 2, "the page of the new policy")
    assert [said for said, _ in receiver.told] == ["firing", "firing"]
    assert kept(world.disk) is not None


async def test_rules_are_written_for_a_policy_that_is_made_anew(world: World) -> None:
    """Those of the one before are collected with it."""
    world.service()
    world.policy(export=True)
    async with world.operator():
        await eventually(lambda: world.status().get("exported"), "they are written")
        world.api.remove(ALERT_POLICIES, "demo", "watch")
        world.policy(export=True)
        world.api.remove(PROMETHEUS_RULES, "demo", "foretide-alerts-watch")
        await eventually(lambda: world.status().get("exported"), "the new one says where its rules are")
        assert world.api.now(PROMETHEUS_RULES, "demo", "foretide-alerts-watch") is not None


async def test_what_is_known_of_a_policy_that_went_while_nobody_led_is_erased(world: World) -> None:
    world.service(servable=False)
    world.policy()
    async with world.operator():
        await eventually(lambda: world.status().get("openIncidents"), "an incident")
    assert kept(world.disk) is not None
    world.api.remove(ALERT_POLICIES, "demo", "watch")
    world.policy(name="other")
    async with world.operator():
        await eventually(lambda: world.status("other").get("openIncidents"), "the other's incident")
    assert kept(world.disk) is None


async def test_a_quiet_policy_writes_nothing(world: World, receiver: Receiver) -> None:
    world.service()
    world.policy(hook(receiver))
    async with world.operator():
        await eventually(lambda: world.status().get("observedGeneration"), "it shows")
    writes = world.api.writes
    async with world.operator() as wired:
        await eventually(lambda: wired.metrics._desk.books(), "the second operator looked")
        assert world.api.writes == writes
    assert world.api.now(ALERT_POLICIES, "demo", "watch") is not None
