"""The dashboard's port over HTTP: who may look, and what strange questions are answered with."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

from controllers.dashboard.access import AT_ONCE, BELIEVED_S, MOST_REMEMBERED, MOST_WAITING, Access, Refused
from controllers.dashboard.caches import Caches
from controllers.dashboard.server import DashboardServer
from controllers.history.interface import Counts, HistoryUnavailable, ServiceId, empty
from kube.errors import Unreachable
from kube.informer import Informer, lean
from kube.resources import (
    ALERT_POLICIES,
    CAPACITY_FORECASTS,
    GPU_POOLS,
    INFERENCE_SERVICES,
    SLAS,
    TENANTS,
    TOKEN_REVIEWS,
    Object,
    Resource,
)
from tests.fakes import FakeClient
from tests.waiting import eventually

CHAT = {
    "metadata": {"namespace": "demo", "name": "chat"},
    "spec": {"model": "smollm", "sla": "fast"},
    "status": {"readyReplicas": 1},
}
SLA = {
    "metadata": {"namespace": "demo", "name": "fast"},
    "spec": {"priority": "P1", "availability": "99%", "window": "1d"},
}


@dataclass
class Memories:
    """A past of our own making."""

    broken: bool = False
    reads: int = 0

    async def counts(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        self.reads += 1
        if self.broken:
            raise HistoryUnavailable("Prometheus does not answer.")
        nothing = empty(start_s, end_s, step_s)
        column = np.ones(len(nothing.arrivals))
        return Counts(start_s, step_s, column, column, column, column)

    async def decisions(self, service: ServiceId, since_s: float, most: int) -> list[str]:
        return []


@dataclass
class Reviewer(FakeClient):
    """Knows the token `good`, and `stranger` who may nothing."""

    asked: list[str] = field(default_factory=list)
    away: bool = False
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        super().__init__((INFERENCE_SERVICES, CHAT), (SLAS, SLA))
        self.may_answer.set()

    async def create(self, resource: Resource, obj: Any) -> Object:
        self.asked.append(resource.kind)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.may_answer.wait()
        self.at_once -= 1
        if self.away:
            raise Unreachable("create TokenReview: no answer. Look at the API server.")
        if resource is TOKEN_REVIEWS:
            token = obj["spec"]["token"]
            known = token in ("good", "stranger")
            return {"status": {"authenticated": known, "user": {"username": token, "groups": ["people"]}}}
        return {"status": {"allowed": obj["spec"]["user"] == "good"}}


@contextlib.asynccontextmanager
async def dashboard(
    client: Reviewer,
    static: Path,
    *,
    anonymous: bool = False,
    past: Memories | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[TestClient[Any, Any]]:
    kinds = (INFERENCE_SERVICES, CAPACITY_FORECASTS, SLAS, TENANTS, GPU_POOLS, ALERT_POLICIES)
    informers = [Informer(client, one, keep=lean) for one in kinds]
    caches = Caches(*informers)
    tasks = [asyncio.ensure_future(one.run()) for one in informers]
    server = DashboardServer(caches, past or Memories(), Access(client, anonymous=anonymous), static, clock=clock)
    try:
        await eventually(lambda: all(one.synced.is_set() for one in informers), "caches")
        async with TestClient(TestServer(server.app())) as http:
            yield http
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_without_a_token_nothing_is_shown_and_the_sentence_says_what_to_do(tmp_path: Path) -> None:
    async with dashboard(Reviewer(), tmp_path) as http:
        for path in ("session", "services", "services/demo/chat", "tenants", "pools"):
            answer = await http.get(f"/api/v1/{path}")
            assert answer.status == 401
            assert "Sign in with a Kubernetes token" in (await answer.json())["message"]


@pytest.mark.parametrize(("token", "status"), [("good", 200), ("stranger", 403), ("wrong", 401)])
async def test_the_api_server_judges_the_token_and_the_permission(tmp_path: Path, token: str, status: int) -> None:
    async with dashboard(Reviewer(), tmp_path) as http:
        answer = await http.get("/api/v1/session", headers={"Authorization": f"Bearer {token}"})
        assert answer.status == status


async def test_a_token_is_judged_once_a_minute_also_a_bad_one() -> None:
    client, now_s = Reviewer(), 0.0
    access = Access(client, anonymous=False, clock=lambda: now_s)
    for _ in range(3):
        assert (await access.viewer("Bearer good")).user == "good"
        with pytest.raises(Refused):
            await access.viewer("Bearer wrong")
    assert client.asked == ["TokenReview", "SubjectAccessReview", "TokenReview"]
    now_s = 61.0
    await access.viewer("Bearer good")
    assert len(client.asked) == 5


async def test_all_who_come_at_once_with_one_token_share_its_answer() -> None:
    client = Reviewer()
    access = Access(client, anonymous=False)
    client.may_answer.clear()
    asking = [asyncio.create_task(access.viewer("Bearer good")) for _ in range(50)]
    await eventually(lambda: client.asked, "the token is judged")
    asking.pop(0).cancel()
    client.may_answer.set()
    assert {viewer.user for viewer in await asyncio.gather(*asking)} == {"good"}
    assert client.asked == ["TokenReview", "SubjectAccessReview"]


async def test_junk_takes_few_places_and_is_told_to_wait_while_a_known_viewer_is_let_in() -> None:
    client, now_s = Reviewer(), 0.0
    access = Access(client, anonymous=False, clock=lambda: now_s)
    await access.viewer("Bearer good")
    client.may_answer.clear()
    now_s = BELIEVED_S + 1
    junk = [asyncio.create_task(access.viewer(f"Bearer junk{i}")) for i in range(MOST_WAITING)]
    await eventually(lambda: client.at_once == AT_ONCE, "some junk is judged")
    with pytest.raises(Refused, match="other tokens wait to be checked") as refused:
        await access.viewer("Bearer one-more")
    assert refused.value.status == 503
    known = asyncio.create_task(access.viewer("Bearer good"))
    client.may_answer.set()
    assert (await known).user == "good"
    assert all(isinstance(one, Refused) for one in await asyncio.gather(*junk, return_exceptions=True))
    assert client.most_at_once == AT_ONCE


async def test_any_number_of_refused_tokens_makes_no_viewer_be_judged_again() -> None:
    client = Reviewer()
    access = Access(client, anonymous=False, clock=lambda: 0.0)
    await access.viewer("Bearer good")
    for i in range(MOST_REMEMBERED + 1):
        with pytest.raises(Refused):
            await access.viewer(f"Bearer junk{i}")
    asked = len(client.asked)
    await access.viewer("Bearer good")
    with pytest.raises(Refused):
        await access.viewer(f"Bearer junk{MOST_REMEMBERED}")
    assert len(client.asked) == asked


async def test_an_api_server_that_is_away_lets_nobody_in(tmp_path: Path) -> None:
    async with dashboard(Reviewer(away=True), tmp_path) as http:
        answer = await http.get("/api/v1/session", headers={"Authorization": "Bearer good"})
        assert answer.status == 503


async def test_read_only_access_for_all_is_the_administrators_choice(tmp_path: Path) -> None:
    async with dashboard(Reviewer(), tmp_path, anonymous=True) as http:
        assert await (await http.get("/api/v1/session")).json() == {"user": None, "readOnly": True}
        assert (await (await http.get("/api/v1/services")).json())["total"] == 1
        assert (await http.post("/api/v1/services")).status == 405


async def test_one_service_shows_its_error_budget_and_a_strange_one_is_named(tmp_path: Path) -> None:
    async with dashboard(Reviewer(), tmp_path, anonymous=True) as http:
        found = await (await http.get("/api/v1/services/demo/chat")).json()
        assert (found["errorBudget"]["left"], found["sla"]["name"]) == (1.0, "fast")
        missing = await http.get("/api/v1/services/demo/nope")
        assert missing.status == 404
        assert "'demo/nope'" in (await missing.json())["message"]


async def test_a_window_of_weeks_is_read_once_in_ten_minutes_however_many_pages_are_open(tmp_path: Path) -> None:
    past = Memories()
    async with dashboard(Reviewer(), tmp_path, anonymous=True, past=past, clock=lambda: 1_000_000.0) as http:
        budgets = [(await (await http.get("/api/v1/services/demo/chat")).json())["errorBudget"] for _ in range(3)]
    assert budgets[0] is not None
    assert budgets == [budgets[0]] * 3
    assert past.reads == 1


@pytest.mark.parametrize(
    "question",
    [
        "services?sort=colour",
        "services/demo/chat/chart?hours=0",
        "services/demo/chat/chart?hours=x",
        "services/demo/chat/chart?hours=²",
    ],
)
async def test_a_wrong_question_is_answered_with_what_is_allowed(tmp_path: Path, question: str) -> None:
    async with dashboard(Reviewer(), tmp_path, anonymous=True) as http:
        assert (await http.get(f"/api/v1/{question}")).status == 400


async def test_a_page_that_is_no_number_is_the_first_one(tmp_path: Path) -> None:
    async with dashboard(Reviewer(), tmp_path, anonymous=True) as http:
        for page in ("²", "x", "0", "-1", "9" * 50):
            answer = await http.get("/api/v1/services", params={"page": page})
            assert (await answer.json())["page"] == 1


async def test_a_token_that_is_no_text_is_none() -> None:
    client = Reviewer()
    with pytest.raises(Refused, match="Sign in") as refused:
        await Access(client, anonymous=False).viewer("Bearer \udcff")  # What aiohttp makes of a byte that is no UTF-8.
    assert (refused.value.status, client.asked) == (401, [])


async def test_a_history_that_is_away_is_said_and_the_rest_still_shows(tmp_path: Path) -> None:
    async with dashboard(Reviewer(), tmp_path, anonymous=True, past=Memories(broken=True)) as http:
        chart = await http.get("/api/v1/services/demo/chat/chart")
        assert chart.status == 503
        assert "Prometheus does not answer" in (await chart.json())["message"]
        assert (await (await http.get("/api/v1/services/demo/chat")).json())["errorBudget"] is None


async def test_the_page_is_served_with_headers_that_keep_strangers_out(tmp_path: Path) -> None:
    async with dashboard(Reviewer(), tmp_path) as http:
        assert "make dashboard" in await (await http.get("/")).text()
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a.js").write_text("1")
    (tmp_path / "index.html").write_text("<p>here</p>")
    async with dashboard(Reviewer(), tmp_path) as http:
        answer = await http.get("/")
        assert await answer.text() == "<p>here</p>"
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert (await http.get("/assets/a.js")).status == 200
        assert (await http.get("/assets/../../etc/passwd")).status == 404


async def test_pools_are_shown_with_their_reasons_and_nodes_that_are_not_as_planned_first(tmp_path: Path) -> None:
    nodes = [{"name": "a", "state": "Ready", "layout": "gpu"}, {"name": "b", "state": "Stuck", "layout": "empty"}]
    status = {"gpus": 2, "layout": "gpu", "reason": "because", "nodes": nodes}
    full = {"metadata": {"name": "h100"}, "spec": {"capacityClass": "spot"}, "status": status}
    fresh = {"metadata": {"name": "a100"}, "spec": {}}
    client = Reviewer()
    for one in (full, fresh):
        client.put(GPU_POOLS, one)
    async with dashboard(client, tmp_path, anonymous=True) as http:
        items = (await (await http.get("/api/v1/pools")).json())["items"]
        assert [one["name"] for one in items] == ["a100", "h100"]
        assert (items[0]["layout"], items[0]["nodes"], items[0]["ready"]) == (None, [], "Unknown")
        assert [one["name"] for one in items[1]["nodes"]] == ["b", "a"]
        assert items[1]["reason"] == "because"
