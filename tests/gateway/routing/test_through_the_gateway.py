"""Routing as a client meets it: sessions, prefixes, splits, copies, and the reason for a decision."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

from gateway.routing.terms import Policy, RoutingTerms, TrafficShare
from tests.gateway.harness import Exchange, FakeWorker, Running, answers, load, service, serving
from tests.waiting import eventually

ASK: dict[str, Any] = {"model": "chat", "messages": []}
STREAM = ASK | {"stream": True}


def fleet(*names: str) -> list[FakeWorker]:
    return [FakeWorker(answers, name=f"chat-{name}-1-{number}") for number, name in enumerate(names)]


def prompt(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "system", "content": text * 100}]} | more


async def serve_by(gateway: Running, workers: list[FakeWorker], routing: RoutingTerms, **more: Any) -> None:
    gateway.source.publish_services(replace(service(*workers), routing=routing, **more))


def counts(workers: list[FakeWorker]) -> list[int]:
    return [len(one.asked) for one in workers]


async def test_one_session_stays_on_one_worker_and_many_spread() -> None:
    workers = fleet("a", "a", "a", "a")
    async with serving(*workers) as gateway:
        await serve_by(gateway, workers, RoutingTerms(Policy.SESSION))
        for _ in range(12):
            await gateway.post(ASK, headers={"x-foretide-session": "s1"})
        assert sorted(counts(workers)) == [0, 0, 0, 12]
        for number in range(60):
            await gateway.post(ASK | {"user": f"u{number}"})
        assert min(counts(workers)) > 0


async def test_prompts_with_the_same_beginning_meet_the_same_worker() -> None:
    workers = fleet("a", "a", "a", "a")
    async with serving(*workers) as gateway:
        await serve_by(gateway, workers, RoutingTerms(Policy.PREFIX))
        for _ in range(8):
            await gateway.post(prompt("shop"))
        assert sorted(counts(workers)) == [0, 0, 0, 8]
        assert await gateway.metric("routing_decisions_total", why="prefix_home") == 8


async def test_round_robin_takes_turns() -> None:
    workers = fleet("a", "a", "a")
    async with serving(*workers) as gateway:
        await serve_by(gateway, workers, RoutingTerms(Policy.ROUND_ROBIN))
        for _ in range(9):
            await gateway.post(ASK)
        assert counts(workers) == [3, 3, 3]


async def test_adaptive_spares_the_worker_that_others_keep_busy() -> None:
    workers = fleet("a", "a")
    for one in workers:
        one.load = load()
    workers[0].load = load(running=8, waiting=8, utilisation=1.0, kv_usage=0.9)
    async with serving(*workers) as gateway:
        state = next(iter(gateway.gateway._fleet))
        await eventually(lambda: all(one.load for one in state.backends), "both have told their load")
        for _ in range(6):
            await gateway.post(ASK)
        assert counts(workers) == [0, 6]


async def test_the_own_zone_is_preferred_until_it_is_busier() -> None:
    workers = fleet("a", "a")
    release = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        await release.wait()
        await answers(exchange)

    async with serving(*workers) as gateway:
        next(iter(gateway.gateway._fleet)).picker._zone = "z1"
        near, far = workers[0].endpoint(zone="z1"), workers[1].endpoint(zone="z2")
        routing = RoutingTerms(Policy.LEAST_CONNECTIONS, prefer_zone=True)
        gateway.source.publish_services(replace(service(), endpoints=(near, far), routing=routing))
        for _ in range(6):
            await gateway.post(ASK)
        assert counts(workers) == [6, 0]
        for one in workers:
            one.behaviours[:] = [waits]
        asking = [asyncio.create_task(gateway.post(ASK)) for _ in range(12)]
        await eventually(lambda: sum(counts(workers)) == 18, "all are at work")
        assert workers[1].asked, "the other zone helps"
        release.set()
        await asyncio.gather(*asking)


async def test_the_reason_is_told_to_who_asks_and_to_nobody_else() -> None:
    workers = fleet("a", "a")
    workers[0].load = workers[1].load = load()
    async with serving(*workers) as gateway:
        got = await gateway.post(STREAM, headers={"x-foretide-explain": "true"})
        assert got.headers["x-foretide-decision"].startswith("adaptive: least_cost chat-a-1-")
        assert "score" in got.headers["x-foretide-decision"]
        assert "x-foretide-decision" not in (await gateway.post(ASK)).headers
        refused = await gateway.post(ASK, key=None, headers={"x-foretide-explain": "true"})
        assert (refused.status, "x-foretide-decision" in refused.headers) == (401, False)


# --- split and mirror -------------------------------------------------------------------------------------------------


async def test_traffic_is_split_by_weight_and_a_session_stays_on_its_revision() -> None:
    workers = fleet("old", "new")
    async with serving(*workers) as gateway:
        traffic = (TrafficShare("old", 70), TrafficShare("new", 30))
        await serve_by(gateway, workers, RoutingTerms(), traffic=traffic)
        seen: dict[str, set[str]] = {}
        for _ in range(3):
            for number in range(60):
                got = await gateway.post(ASK, headers={"x-foretide-session": f"s{number}"})
                seen.setdefault(f"s{number}", set()).add(got.headers["x-foretide-revision"])
        assert all(len(revisions) == 1 for revisions in seen.values())
        share = Counter(next(iter(one)) for one in seen.values())
        assert 8 <= share["new"] <= 30
        for name, value in (("old", share["old"]), ("new", share["new"])):
            assert await gateway.metric("revision_requests_total", revision=name) == 3 * value
        await serve_by(gateway, workers, RoutingTerms())
        assert await gateway.metric("revision_requests_total") == 0, "the figures go with the split"


async def test_a_revision_without_a_worker_is_served_by_another_only_if_the_service_says_so() -> None:
    old, gone = fleet("old", "gone")
    async with serving(old) as gateway:
        traffic = (TrafficShare("old", 0), TrafficShare("gone", 100))
        await serve_by(gateway, [old], RoutingTerms(other_revision=True), traffic=traffic)
        assert (await gateway.post(ASK)).headers["x-foretide-revision"] == "old"
        await serve_by(gateway, [old], RoutingTerms(other_revision=False), traffic=traffic)
        asking = asyncio.create_task(gateway.post(ASK))
        await eventually(lambda: gateway.gateway._proxy.in_flight == 1, "the request waits")
        assert len(old.asked) == 1
        await gone.start()
        await serve_by(gateway, [old, gone], RoutingTerms(other_revision=False), traffic=traffic)
        assert (await asking).headers["x-foretide-revision"] == "gone"
        await gone.stop()


async def test_the_figures_of_a_revision_are_its_own() -> None:
    async def fails(exchange: Exchange) -> None:
        await exchange.json(500, {"error": {"message": "no"}})

    old, new = fleet("old", "new")
    new.behaviours[:] = [answers, fails]
    async with serving(old, new) as gateway:
        await serve_by(gateway, [old, new], RoutingTerms(), traffic=(TrafficShare("old", 0), TrafficShare("new", 100)))
        assert (await gateway.post(STREAM)).status == 200
        assert (await gateway.post(ASK)).status == 500
        expected = {"requests_total": 2, "errors_total": 1, "ttft_seconds_count": 1, "output_tokens_count": 1}
        for name, value in expected.items():
            assert await gateway.metric(f"revision_{name}", revision="new") == value, name
        assert await gateway.metric("revision_requests_total", revision="old") == 0


async def test_a_mirror_gets_copies_that_nobody_sees_and_that_nobody_pays_for() -> None:
    async def breaks(exchange: Exchange) -> None:
        await exchange.json(500, {"error": {"message": "no"}})

    old, new = fleet("old", "new")
    new.behaviours[:] = [answers, breaks]
    async with serving(old, new) as gateway:
        traffic = (TrafficShare("old", 100), TrafficShare("new", 0, mirror=100))
        await serve_by(gateway, [old, new], RoutingTerms(), traffic=traffic)
        for body in (STREAM, ASK):
            assert (await gateway.post(body)).headers["x-foretide-revision"] == "old"
        await eventually(lambda: len(new.asked) == 2, "both were copied, and the one that failed was not repeated")
        await eventually(lambda: not gateway.gateway._frontend._mirror._tasks, "both have ended")
        assert len(new.asked) == 2
        assert new.asked[0].body == old.asked[0].body
        assert await gateway.metric("revision_errors_total", revision="new") == 1
        assert await gateway.metric("revision_ttft_seconds_count", revision="new") == 1
        assert await gateway.metric("completed_total") == 2
        assert await gateway.metric("ttft_seconds_count") == 1
        assert await gateway.metric("open_streams") == 0
        assert await gateway.metric("mirrored_total", state="sent") == 2


# --- deadlines --------------------------------------------------------------------------------------------------------


async def test_a_client_may_wait_for_less_but_not_for_more() -> None:
    async def hangs(exchange: Exchange) -> None:
        await exchange.hang()

    worker = FakeWorker(hangs)
    async with serving(worker) as gateway:
        got = await gateway.post(ASK, headers={"x-request-timeout": "0.3"})
        assert (got.status, got.error["code"]) == (504, "deadline_exceeded")
        for nonsense in ("soon", "-1", "0", "1e9", "30s"):
            got = await gateway.post(ASK, headers={"x-request-timeout": nonsense})
            assert got.status == 400
            assert "x-request-timeout" in got.error["message"]
