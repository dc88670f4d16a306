"""A gateway's own bandwidth: shared by weight among those who want it, all of it, and nobody else waits."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.link import SAVED_S, Link
from gateway.errors import SettingsError
from gateway.settings import parse
from tests.gateway.admission.test_bandwidth import World, long_stream
from tests.gateway.harness import SETTINGS, FakeWorker, serving

RATE = 1000.0
TICK_S = 0.01


def passed(wants: list[tuple[float, float]], seconds: float = 60.0) -> list[int]:
    """Bytes of each of these tenants (weight, bytes a second that its workers make), ten at a time."""
    link = Link(RATE, 0.0)
    made, sent = [0.0] * len(wants), [0] * len(wants)
    for tick in range(int(seconds / TICK_S)):
        now_s = tick * TICK_S
        for i, (weight, rate) in enumerate(wants):
            made[i] += rate * TICK_S
            while made[i] - sent[i] >= 10 and not link.wait_s(f"t{i}", now_s):
                link.charge(f"t{i}", weight, 10, now_s)
                sent[i] += 10
    return sent


def fair(wants: list[tuple[float, float]]) -> list[float]:
    """Weighted max-min shares of the link, by filling."""
    got, open_, left = [0.0] * len(wants), set(range(len(wants))), RATE
    while open_ and left > 1e-9:
        each = left / sum(wants[i][0] for i in open_)
        step = min(each, *((wants[i][1] - got[i]) / wants[i][0] for i in open_))
        for i in open_:
            got[i] += step * wants[i][0]
            left -= step * wants[i][0]
        open_ = {i for i in open_ if wants[i][1] - got[i] > 1e-9}
    return got


def test_three_times_the_weight_gets_three_times_the_bytes_of_a_full_link() -> None:
    light, heavy = passed([(1.0, 5000.0), (3.0, 5000.0)])
    assert heavy / light == pytest.approx(3.0, rel=0.02)
    assert light + heavy == pytest.approx(60 * RATE, rel=0.02)


def test_what_one_tenant_leaves_goes_to_the_others_by_weight() -> None:
    modest, light, heavy = passed([(5.0, 100.0), (1.0, 5000.0), (2.0, 5000.0)])
    assert modest == pytest.approx(60 * 100, rel=0.01)
    assert light == pytest.approx(60 * 300, rel=0.03)
    assert heavy == pytest.approx(60 * 600, rel=0.03)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(10, 3000)), min_size=1, max_size=4))
def test_whoever_wants_whatever_shares_are_max_min_fair_by_weight(wants: list[tuple[float, float]]) -> None:
    for got, due in zip(passed(wants, 10.0), fair(wants), strict=True):
        assert got == pytest.approx(10.0 * due, abs=len(wants) * (RATE * SAVED_S + 20) + RATE * SAVED_S)


def test_nobody_waits_at_a_link_that_is_not_full() -> None:
    link = Link(RATE, 0.0)
    for tick in range(1000):
        for name in "ab":
            assert not link.charge(name, 1.0, 4, tick * TICK_S)


def test_an_end_of_all_its_answers_forgives_no_tenants_debt() -> None:
    link = Link(RATE, 0.0)
    assert link.charge("a", 1.0, 5000, 0.0)
    assert link.wait_s("a", 1.0) == pytest.approx(4.0 - SAVED_S)
    assert link.wait_s("b", 1.0) == 0.0
    assert link.wait_s("a", 5.0) == 0.0


def test_the_limit_of_the_tenant_and_the_link_both_have_to_agree_that_an_answer_goes_on() -> None:
    world = World()
    outer = world.around(Link(2 * RATE, 0.0))
    outer.govern(world.source)
    outer.write(bytes(5000))
    world.loop.pass_to(3.0)
    assert world.source.paused, "the link is paid, the Tenant's limit is not"
    world.loop.pass_to(5.0)
    assert not world.source.paused
    world.account = None
    outer.write(bytes(5000))
    world.loop.pass_to(6.0)
    assert world.source.paused, "the limit is lifted, the link is not paid"
    world.loop.pass_to(8.0)
    assert not world.source.paused
    assert sum(map(len, world.client.came)) == 10_000


async def test_answers_beyond_the_gateways_bytes_wait_and_come_whole() -> None:
    ask: dict[str, Any] = {"model": "chat", "messages": [], "stream": True}
    limited = dataclasses.replace(SETTINGS, bytes_per_second=100_000.0)
    async with serving(FakeWorker(long_stream), settings=limited) as gateway:
        answers = [await gateway.post(ask) for _ in range(3)]
        assert [one.status for one in answers] == [200] * 3
        assert all(one.body.count(b"x" * 5000) == 12 and one.body.endswith(b"[DONE]\n\n") for one in answers)
        assert await gateway.metric("bandwidth_waits_total", tenant="acme") >= 1


def test_the_flag_is_of_all_processes_together_and_too_little_is_refused() -> None:
    assert parse([]).bytes_per_second is None
    assert parse(["--bytes-per-second=8000000", "--processes=4"]).bytes_per_second == 2_000_000
    for wrong in ("4095", "-1"):
        with pytest.raises(SettingsError, match=r"at least 1,024 for each of --processes \(4\)"):
            parse([f"--bytes-per-second={wrong}", "--processes=4"])
