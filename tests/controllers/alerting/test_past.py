"""Counts are read once for all policies, and then only where they are new; a history that is away decides nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.alerting.facts import gauges
from controllers.alerting.past import RETRY_S, Past
from controllers.history.interface import Counts, HistoryUnavailable, ServiceId
from controllers.history.store import Store
from controllers.plans.alerting.readings import COARSE_S, FINE_S
from crds.alert_policy import Metric
from tests.controllers.alerting.receivers import receiving
from tests.controllers.alerting.world import World
from tests.waiting import eventually

CHAT = ServiceId("demo", "chat")
HOUR_S = 3600.0


@dataclass
class Source:
    """As many requests in each step as its number since the epoch, modulo 7."""

    name: str = "Fake"
    works: bool = True
    asked: list[tuple[float, float]] = field(default_factory=list)

    async def read(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        self.asked.append((start_s, end_s))
        if not self.works:
            raise HistoryUnavailable("It is away. Look at it.")
        steps = np.arange(start_s, end_s, step_s) // step_s % 7
        return Counts(start_s, step_s, steps, steps, steps, steps)


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ({}, {}),
        ({"desiredReplicas": 2, "readyReplicas": 1}, {Metric.WORKERS_MISSING: 1.0}),
        ({"desiredReplicas": 1, "readyReplicas": 3}, {Metric.WORKERS_MISSING: 0.0}),
        (
            {"conditions": [{"type": "Servable", "status": "False"}]},
            {Metric.UNSERVABLE: 1.0, Metric.QUALITY_DRIFT: 0.0},
        ),
        (
            {"conditions": [{"type": "QualityDrift", "status": "True"}]},
            {Metric.QUALITY_DRIFT: 1.0},
        ),
        (
            {"desiredReplicas": 0, "conditions": [{"type": "Servable", "status": "False"}]},
            {Metric.WORKERS_MISSING: 0.0, Metric.UNSERVABLE: 0.0, Metric.QUALITY_DRIFT: 0.0},
        ),
    ],
)
def test_a_status_says_what_is_missing_and_a_sleeping_service_misses_nothing(
    status: dict[str, Any], found: dict[Metric, float]
) -> None:
    assert gauges({"status": status}) == found


async def test_only_what_is_new_is_read_again() -> None:
    source, now = Source(), [100 * HOUR_S + 30]
    past = Past(source, lambda: now[0])
    first = await past.counts(CHAT, FINE_S)
    assert first is not None
    assert (first.start_s, first.end_s) == (94 * HOUR_S, 100 * HOUR_S)
    assert await past.counts(CHAT, FINE_S) is first
    now[0] += 60
    again = await past.counts(CHAT, FINE_S)
    assert again is not None
    assert (again.start_s, again.end_s) == (94 * HOUR_S + 60, 100 * HOUR_S + 60)
    assert np.array_equal(again.arrivals[:-1], first.arrivals[1:])
    assert source.asked == [(94 * HOUR_S, 100 * HOUR_S), (100 * HOUR_S - 120, 100 * HOUR_S + 60)]


async def test_a_step_is_not_read_before_its_last_scrape_is_in() -> None:
    past = Past(Source(), lambda: 100 * HOUR_S + 10)
    found = await past.counts(CHAT, FINE_S)
    assert found is not None
    assert found.end_s == 100 * HOUR_S - 60


async def test_a_history_that_is_away_is_told_and_asked_again_after_a_while() -> None:
    source, now = Source(works=False), [100 * HOUR_S + 30]
    past = Past(source, lambda: now[0])
    assert await past.counts(CHAT, FINE_S) is None
    assert await past.counts(CHAT, COARSE_S) is None
    assert len(source.asked) == 1
    assert past.trouble == "It is away. Look at it."
    source.works, now[0] = True, now[0] + RETRY_S
    assert await past.counts(CHAT, FINE_S) is not None
    assert past.trouble is None


async def test_how_unusual_a_step_is_is_reckoned_once() -> None:
    source = Source()
    past = Past(source, lambda: 1000 * HOUR_S + 30)
    found = await past.improbability(CHAT, Metric.REQUESTS)
    assert found is not None
    assert past.surprises() == {(CHAT, Metric.REQUESTS): found}
    assert await past.improbability(CHAT, Metric.REQUESTS) is found


async def test_what_no_policy_asks_for_any_more_is_forgotten() -> None:
    source, now = Source(), [1000 * HOUR_S + 30]
    past = Past(source, lambda: now[0])
    await past.improbability(CHAT, Metric.REQUESTS)
    now[0] += 2 * HOUR_S
    await past.counts(ServiceId("demo", "another"), FINE_S)
    assert past.surprises() == {}


@pytest.mark.parametrize(("failing", "pages"), [(0.2, 1), (0.0, 0)])
async def test_requests_that_fail_in_the_embedded_history_are_a_page(
    tmp_path: Path, failing: float, pages: int
) -> None:
    world = World(tmp_path / "history.sqlite")
    store = Store(world.disk)
    now_s = time.time()
    for ago in range(20):
        row = (100.0, 100.0 * (1 - failing), 0.0, 0.0)
        store.add({CHAT: row}, 60.0, (now_s // 60 - ago) * 60.0)
    store.close()
    world.service()
    fails = {"name": "fails", "severity": "P0", "metric": "failures", "threshold": {"above": "0.1"}}
    async with receiving() as receiver:
        hook = {"name": "hook", "webhook": {"url": receiver.url}}
        world.policy(hook, rules=[fails])
        async with world.operator():
            await eventually(lambda: world.status().get("observedGeneration"), "it looked")
            await eventually(lambda: len(receiver.told) >= pages, "a page")
            assert world.status().get("pending") == 0
        assert len(receiver.told) == pages
    assert not pages or "failures of chat over 5m: 0.2 > 0.1" in str(receiver.came)
