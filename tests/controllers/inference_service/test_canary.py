"""Canaries over the API server in memory: measured at the gateways, written into the status, and told in Events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from controllers.history.interface import Counts, HistoryUnavailable, ServiceId, empty
from controllers.inference_service.budgets import BudgetBoard
from controllers.inference_service.canaries import CanaryBoard, increments
from controllers.inference_service.metrics import ServiceMetrics
from controllers.inference_service.prompts import answer_in
from controllers.inference_service.quality import NoMemory, QualityBoard
from controllers.inference_service.revision_report import RevisionId, read_revisions
from controllers.plans.canary.evidence import Evidence
from controllers.plans.canary.samples import Sample, median
from controllers.plans.canary.values import Pair
from controllers.plans.quality import Policy
from controllers.runtime.interface import Key
from controllers.runtime.queue import ReconcileQueue
from crds import contract
from crds.rollout import Rollout
from gateway.catalog import ServiceKey
from gateway.revision_metrics import RevisionFamilies, Revisions
from kube.informer import Informer, lean
from kube.resources import INFERENCE_SERVICES, SLAS, Object
from tests.controllers.inference_service.harness import (
    FakePorts,
    Kubernetes,
    MemoryKubelet,
    Operator,
    ground,
    inference_service,
    put,
    until,
)
from tests.fakes import FakeClient

NS = "demo"
GATEWAY = "10.9.0.1"
QUICK = {
    "strategy": "canary",
    "steps": [{"weight": 50, "duration": "1s"}],
    "analysis": {"minRequests": 50, "confidence": "90%", "margin": 100, "errorMargin": "10%"},
    "outputs": {"prompts": ["The capital of France is"]},
    "drainTimeout": "30s",
}


def page(**revisions: Any) -> str:
    """A gateway's page: of each revision the requests, the errors, and the seconds of every first token."""
    lines = []
    for revision, (requests, errors, seconds) in revisions.items():
        labels = f'namespace="{NS}",revision="{revision.removeprefix("r_")}",service="chat"'
        lines.append(f"{contract.METRIC_REVISION_REQUESTS}{{{labels}}} {requests}.0")
        lines.append(f"{contract.METRIC_REVISION_ERRORS}{{{labels}}} {errors}.0")
        for bound in (*contract.REVISION_TTFT_BOUNDS_S, float("inf")):
            le = "+Inf" if bound == float("inf") else repr(bound)
            below = sum(one <= bound for one in seconds)
            lines.append(f'{contract.METRIC_REVISION_TTFT}_bucket{{le="{le}",{labels}}} {below}.0')
    return "\n".join(lines) + "\n"


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_page_gives_counts_in_each_bucket() -> None:
    found = read_revisions("# HELP x y\n" + page(abc=(5, 1, [0.02, 0.021, 0.4, 99.0])))
    sample = found[RevisionId(ServiceId(NS, "chat"), "abc")]
    assert (sample.requests, sample.errors, sum(sample.ttft), sample.ttft[-1]) == (5, 1, 4, 1)
    assert median(sample.ttft, contract.REVISION_TTFT_BOUNDS_S) == pytest.approx(0.021, rel=0.1)


def test_what_the_gateway_writes_is_what_is_read() -> None:
    registry = CollectorRegistry()
    revisions = Revisions(RevisionFamilies(registry), ServiceKey(NS, "chat"))
    revisions.ended(b"abc", good=True)
    revisions.ended(b"abc", good=False)
    revisions.completed(b"abc", output_tokens=11, ttft_s=0.2, rest_s=0.5)
    sample = read_revisions(generate_latest(registry).decode())[RevisionId(ServiceId(NS, "chat"), "abc")]
    assert (sample.requests, sample.errors) == (2, 1)
    assert median(sample.ttft, contract.REVISION_TTFT_BOUNDS_S) == pytest.approx(0.2, rel=0.1)
    assert median(sample.tpot, contract.REVISION_TPOT_BOUNDS_S) == pytest.approx(0.05, rel=0.1)
    assert median(sample.length, contract.REVISION_OUTPUT_TOKENS_BOUNDS) == pytest.approx(11, rel=0.1)


def test_buckets_of_another_release_are_not_read() -> None:
    text = f'{contract.METRIC_REVISION_TTFT}_bucket{{le="0.33",namespace="a",revision="b",service="c"}} 4.0\n'
    assert sum(read_revisions(text)[RevisionId(ServiceId("a", "c"), "b")].ttft) == 0


@pytest.mark.parametrize("value", ["NaN", "-1", "x", "", "1e99"])
def test_nonsense_on_a_page_is_left_out(value: str) -> None:
    line = f'{contract.METRIC_REVISION_REQUESTS}{{namespace="a",revision="b",service="c"}} {value}\n'
    assert read_revisions(line + "foretide_gateway_revision_requests_total\n" + "{}\n") == {}


def test_increments_are_summed_over_gateways_and_begin_where_a_gateway_is_first_seen() -> None:
    one = RevisionId(ServiceId(NS, "chat"), "abc")
    before = {"g1": {one: Sample(10, 1)}}
    now = {"g1": {one: Sample(15, 2)}, "g2": {one: Sample(100, 50)}}
    assert increments(before, now) == {one: Sample(5, 1)}


def test_a_counter_that_was_reset_counts_from_zero() -> None:
    assert Sample(3, 1).since(Sample(10, 2)) == Sample(3, 1)


@pytest.mark.parametrize("said", [{}, {"choices": []}, {"choices": [{"logprobs": None}]}, {"choices": "x"}])
def test_an_answer_without_probabilities_is_none(said: dict[str, Any]) -> None:
    assert answer_in(said) is None


class Past:
    """A history in which `failed` of 1,000 requests were not answered."""

    name = "Test"

    def __init__(self, failed: float) -> None:
        self.failed, self.away = failed, False

    async def read(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        if self.away:
            raise HistoryUnavailable("it is away")
        counts = empty(start_s, end_s, step_s)
        counts.arrivals[-1], counts.completed[-1] = 1000.0, 1000.0 - self.failed
        return counts


CHAT_KEY = Key("InferenceService", NS, "chat")


async def board_of(
    past: Past, *, gates: bool = True, clock: Callable[[], float] = time.time, **sla: str
) -> BudgetBoard:
    """A board after its first reading of service `chat` with SLA `gold`."""
    client = FakeClient()
    spec = {"priority": "P1", **sla}
    await put(client, SLAS, {"kind": "SLA", "metadata": {"namespace": NS, "name": "gold"}, "spec": spec})
    slas = Informer(client, SLAS, keep=lean)
    board = BudgetBoard(past, slas, ReconcileQueue(), wall_clock=clock)
    board.follow(CHAT_KEY, "gold", gates=gates)
    watch = asyncio.create_task(slas.run())
    try:
        await asyncio.wait_for(slas.synced.wait(), 10)
        await board.round()
        return board
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def budget_of(past: Past, **sla: Any) -> str | None:
    """What that board says against a rollout."""
    return (await board_of(past, **sla)).spent(CHAT_KEY)


async def test_a_spent_error_budget_is_told_with_its_arithmetic() -> None:
    said = await budget_of(Past(20), availability="99%", window="1h")
    assert said == (
        "the error budget of SLA 'gold' is spent: 20 of 1000 requests were not answered in full; "
        "99% over 1h allows 10.0"
    )


async def test_an_operator_that_takes_over_holds_by_the_status_until_it_has_read_the_budget_itself() -> None:
    past = Past(20)
    past.away = True
    board = await board_of(past, availability="99%", window="1h")
    assert board.spent(CHAT_KEY) is None
    told = "the error budget of SLA 'gold' is spent"
    assert board.spent(CHAT_KEY, told) == told
    assert board.spent(CHAT_KEY, "the error budget of SLA 'silver' is spent") is None, "it has another one now"
    past.away, past.failed = False, 0
    await board.round()
    assert board.spent(CHAT_KEY, told) is None
    board.follow(CHAT_KEY, "silver", gates=True)
    assert board.spent(CHAT_KEY, told) is None


async def test_a_gateway_that_does_not_reach_a_revision_is_not_asked_alone_and_time_counts_from_the_first_try() -> None:
    asked: list[str] = []

    class Ports(FakePorts):
        async def ask_revision(
            self, gateway: str, namespace: str, service: str, revision: str, body: dict[str, Any]
        ) -> dict[str, Any] | None:
            asked.append(gateway)
            return None

    now_s = [50.0]
    board = CanaryBoard(Ports(), ReconcileQueue(), lambda: frozenset({"g1", "g2"}), clock=lambda: now_s[0])
    board.follow(CHAT_KEY, Pair("a", "b"), Rollout(), Evidence(), candidate_is_ready=True)
    for _ in range(2):
        await board._ask(CHAT_KEY)
        now_s[0] += 30.0
    compared = board.last(CHAT_KEY)
    assert compared
    assert (compared.outputs, compared.asked_s) == (None, 60.0)
    assert set(asked) == {"g1", "g2"}


async def test_what_is_left_or_unknown_holds_no_rollout() -> None:
    assert await budget_of(Past(5), availability="99%", window="1h") is None
    assert await budget_of(Past(500)) is None
    away = Past(500)
    away.away = True
    assert await budget_of(away, availability="99%", window="1h") is None


async def test_every_budget_is_shown_and_only_that_of_a_comparison_holds_a_rollout() -> None:
    shown = await board_of(Past(20), gates=False, availability="99%", window="1h")
    assert shown.left() == {CHAT_KEY: pytest.approx(-1.0)}
    assert shown.spent(CHAT_KEY) is None
    assert (await board_of(Past(500))).left() == {}
    services = Informer(FakeClient(), INFERENCE_SERVICES, keep=lean)
    qualities = QualityBoard(FakePorts(), ReconcileQueue(), NoMemory(), Policy())
    info, left, *_ = ServiceMetrics(services, shown, qualities).collect()
    (sample,) = left.samples
    assert sample.labels == {"namespace": NS, "service": "chat"}
    assert sample.value == pytest.approx(-1.0)
    assert info.samples == []
    shown.forget(CHAT_KEY)
    assert shown.left() == {}


async def test_a_budget_that_holds_nothing_is_read_less_often() -> None:
    clock, past = [10_000.0], Past(5)
    reads: list[float] = []
    read = past.read

    async def counted(service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        reads.append(clock[0])
        return await read(service, start_s, end_s, step_s)

    past.read = counted  # type: ignore[method-assign]
    board = await board_of(past, gates=False, clock=lambda: clock[0], availability="99%", window="1h")
    for _ in range(5):
        clock[0] += 150.0
        await board.round()
    assert reads == [10_000.0, 10_600.0]
    clock[0] = 5_000.0  # It was set back.
    await board.round()
    assert reads[2:] == [5_000.0]


# --- running ---------------------------------------------------------------------------------------------------------


class World:
    """An operator, its fakes, and requests that both revisions get while a canary runs."""

    def __init__(self, client: FakeClient, operator: Operator) -> None:
        self.client, self.operator = client, operator
        self.kubernetes, self.kubelet = Kubernetes(client, NS), MemoryKubelet(client, NS)
        self.asked = 0
        self.errors = 0.0
        self.wrong: set[str] = set()
        operator.ports.completions = self._complete

    @property
    def ports(self) -> FakePorts:
        return self.operator.ports

    def status(self) -> dict[str, Any]:
        return self.operator.status(NS, "chat")

    def rollout(self) -> dict[str, Any]:
        return self.status().get("rollout") or {}

    def _complete(self, revision: str, body: dict[str, Any]) -> dict[str, Any]:
        tokens = list("nonsense" if revision in self.wrong else " Paris.")
        return {"choices": [{"logprobs": {"tokens": tokens, "token_logprobs": [-0.1] * len(tokens)}}]}

    async def until(self, condition: Any, what: str) -> None:
        await until(condition, f"{what}; {self.status()}", self.kubernetes.act, self.kubelet.act, self._traffic)

    async def _traffic(self) -> None:
        shares = {one["revision"]: one["weight"] for one in self.status().get("traffic") or []}
        candidate = self.rollout().get("candidate")
        if candidate and shares.get(candidate):
            self.asked += 40
        rows = {
            f"r_{name}": (self.asked, int(self.asked * (self.errors if name == candidate else 0)), [0.1] * self.asked)
            for name in shares
        }
        self.ports.pages = {GATEWAY: page(**rows), "10.9.0.2": ""}

    async def serving(self, **rollout: Any) -> Object:
        wanted = inference_service(NS, rollout={**QUICK, **rollout})
        await put(self.client, INFERENCE_SERVICES, wanted)
        await self.until(
            lambda: self.rollout().get("phase") == "Stable" and self.status().get("readyReplicas"), "serves"
        )
        return wanted

    async def edit(self, wanted: Object, length: int, **rollout: Any) -> None:
        wanted["spec"]["engine"] = {"maxModelLen": length}
        wanted["spec"]["rollout"] |= rollout
        await put(self.client, INFERENCE_SERVICES, wanted)

    def told(self) -> set[str]:
        return {reason for _, reason, _ in self.operator.told.notes}


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("controllers.inference_service.canaries.PERIOD_S", 0.05)
    client = FakeClient()
    await ground(client, NS)
    async with Operator(client).running() as operator:
        yield World(client, operator)


async def test_a_good_revision_is_measured_and_promoted(world: World) -> None:
    wanted = await world.serving()
    first = world.status()["currentRevision"]
    await world.edit(wanted, 512)
    await world.until(lambda: world.rollout().get("phase") == "Analysing", "it is compared")
    second = world.rollout()["candidate"]
    assert {one["revision"]: one["weight"] for one in world.status()["traffic"]} == {first: 50, second: 50}
    await world.until(lambda: world.rollout().get("stable") == second, "it is promoted")
    await world.until(lambda: "traffic" not in world.status(), "no split is left")
    assert world.rollout()["history"][0]["outcome"] == "Promoted"
    assert {"CanaryStarted", "RolloutPromoting", "Promoted"} <= world.told()
    await world.until(lambda: world.operator.condition(NS, "chat", "Ready") == ("True", "WorkersReady"), "it is ready")


async def test_a_failing_revision_is_rolled_back_and_says_what_to_do(world: World) -> None:
    wanted = await world.serving()
    first, world.errors = world.status()["currentRevision"], 0.5
    await world.edit(wanted, 512)
    await world.until(lambda: world.rollout().get("phase") == "RolledBack", "it is rolled back")
    await world.until(lambda: world.operator.condition(NS, "chat", "Stalled") == ("True", "RolledBack"), "it says so")
    await world.until(lambda: "traffic" not in world.status(), "its workers are gone")
    assert world.status()["revisions"] == [{"name": first, "replicas": 1, "readyReplicas": 1}]
    assert world.operator.condition(NS, "chat", "Servable") == ("True", "ProbeAnswered")


async def test_wrong_answers_never_get_a_session(world: World) -> None:
    wanted = await world.serving()
    first = world.status()["currentRevision"]
    await world.edit(wanted, 512, paused=True)
    await world.until(lambda: world.rollout().get("candidate"), "it is tried")
    world.wrong = {world.rollout()["candidate"]}
    await world.until(
        lambda: world.rollout().get("phase") == "RolledBack" or world.rollout()["reason"] == "Paused", "asked"
    )
    assert world.rollout()["phase"] == "RolledBack"
    assert world.rollout()["history"][0]["reason"] == "OutputsDiffer"
    assert world.asked == 0
    assert world.rollout()["stable"] == first


async def test_a_revision_that_was_rolled_back_stays_so_while_the_cache_still_shows_it_being_tried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = await world.serving()
    first = world.status()["currentRevision"]
    answers, world.ports.completions = world.ports.completions, lambda revision, body: {}
    await world.edit(wanted, 512)
    await world.until(lambda: world.rollout().get("reason") == "WarmingUp", "it is tried, and does not answer yet")
    tried, services = world.rollout()["candidate"], world.operator.services
    behind = services.get(NS, "chat")
    monkeypatch.setattr(services, "get", lambda namespace, name: behind)

    def written() -> dict[str, Any]:
        found = world.client.now(INFERENCE_SERVICES, NS, "chat")
        assert found is not None
        return dict(found["status"])

    world.wrong, world.ports.completions = {tried}, answers
    await world.until(lambda: written()["rollout"]["phase"] == "RolledBack", "it is rolled back")
    await world.until(lambda: "traffic" not in written(), "its workers are gone, as the Deployment's changes say")
    assert written()["rollout"]["phase"] == "RolledBack"
    assert [one["revision"] for one in written()["rollout"]["history"]] == [tried]
    assert written()["revisions"] == [{"name": first, "replicas": 1, "readyReplicas": 1}]


async def test_a_new_operator_goes_on_with_what_the_old_one_had_learned(world: World) -> None:
    wanted = await world.serving(analysis={"minRequests": 1_000_000})
    await world.edit(wanted, 512)
    await world.until(lambda: world.rollout().get("verdicts"), "something is known")
    async with Operator(world.client, world.ports).running() as second:
        world.operator = second
        before = world.rollout()["verdicts"][0]["candidate"][0]
        await world.until(lambda: world.rollout()["verdicts"][0]["candidate"][0] > before, "it goes on counting")
    assert before > 0


async def test_one_field_brings_an_earlier_revision_back_at_once(world: World) -> None:
    wanted = await world.serving()
    first = world.status()["currentRevision"]
    await world.edit(wanted, 512, promote=None)
    await world.until(lambda: world.rollout().get("stable") not in (None, first), "the second is promoted")
    await world.edit(wanted, 512, rollbackTo=first)
    await world.until(lambda: [one["name"] for one in world.status()["revisions"]] == [first], "the first serves")
    assert world.rollout()["stable"] == first
    await world.edit(wanted, 512, rollbackTo="nosuch")
    await world.until(
        lambda: world.operator.condition(NS, "chat", "Stalled") == ("True", "RevisionNotFound"), "it says so"
    )


async def test_a_budget_holds_no_rollout_once_its_sla_has_no_window_or_is_gone() -> None:
    board = await board_of(Past(20), availability="99%", window="1h")
    assert board.spent(CHAT_KEY)
    board._slas._store.drop((NS, "gold"))
    await board.round()
    assert (board.spent(CHAT_KEY), board.left()) == (None, {})
