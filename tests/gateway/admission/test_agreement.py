"""Whatever the number of gateways, and whatever the network does to their messages, a limit is what it says."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gateway.admission.ledger import Book, Ledger, Message, Name
from gateway.admission.slots import Claim, fair_shares
from gateway.admission.terms import Limits
from gateway.admission.wire import DATAGRAM_BYTES, decode, encode
from tests.gateway.admission.simulated import SECRET, TENANT, World

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Simulations are not made smaller when they fail: a minute of one tells as much as another."""
PER_MINUTE = 1200
BURST_S = 10.0
MINUTE_S = 60.0
LIMITS = Limits(requests_per_minute=PER_MINUTE, burst_s=BURST_S)
DEPTH = PER_MINUTE / 60 * BURST_S


def warmed(world: World, processes: int) -> None:
    for _ in range(processes):
        world.start()
    world.run(4.0)
    assert all(one.ledger.joined for one in world.processes)
    assert all(one.ledger.members == processes for one in world.processes)


def drained(world: World) -> None:
    """Demand has spent what was saved up; counting begins."""
    for _ in range(30):
        world.run(4.0)
        levels = (one.ledger.holdings(TENANT, LIMITS, world.now_s).requests for one in world.processes)
        if sum(max(0.0, one.level) for one in levels if one is not None) < PER_MINUTE * 0.005:
            break
    for one in world.processes:
        one.admitted = 0.0


conditions = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "loss": st.sampled_from([0.0, 0.1, 0.3]),
        "delay_s": st.sampled_from([0.001, 0.05, 0.4]),
    }
)


@settings(max_examples=8, deadline=None, phases=PHASES)
@given(conditions=conditions, processes=st.integers(1, 5), skew=st.sampled_from([0.0, 0.5, 1.0]))
def test_under_demand_the_total_is_the_limit_within_one_percent(
    conditions: dict[str, float], processes: int, skew: float
) -> None:
    world = World(LIMITS, **conditions)  # type: ignore[arg-type]
    warmed(world, processes)
    for number, one in enumerate(world.processes):
        share = 1.0 if number == 0 else 1.0 - skew
        if share:
            world.demand(one, 60.0 * share, world.ask)
    drained(world)
    world.run(MINUTE_S)
    assert world.admitted == pytest.approx(PER_MINUTE, rel=0.01)


@settings(max_examples=8, deadline=None, phases=PHASES)
@given(conditions=conditions, processes=st.integers(2, 4))
def test_from_full_buckets_no_more_than_the_burst_is_admitted_beyond_the_rate(
    conditions: dict[str, float], processes: int
) -> None:
    world = World(LIMITS, **conditions)  # type: ignore[arg-type]
    warmed(world, processes)
    for one in world.processes:
        world.demand(one, 60.0, world.ask)
    world.run(MINUTE_S)
    assert world.admitted <= (PER_MINUTE + DEPTH) * 1.01
    assert world.admitted >= (PER_MINUTE + DEPTH) * 0.99


@settings(max_examples=8, deadline=None, phases=PHASES)
@given(conditions=conditions, dies_at_s=st.floats(5.0, 40.0), polite=st.booleans())
def test_a_process_that_dies_takes_no_quota_along_and_leaves_none_open(
    conditions: dict[str, float], dies_at_s: float, polite: bool
) -> None:
    world = World(LIMITS, **conditions)  # type: ignore[arg-type]
    warmed(world, 3)
    for one in world.processes:
        world.demand(one, 40.0, world.ask)
    drained(world)
    victim = world.processes[1]
    world.at(world.now_s + dies_at_s, lambda: (world.quit if polite else world.kill)(victim))
    world.run(MINUTE_S)
    assert world.admitted == pytest.approx(PER_MINUTE, rel=0.01)


@settings(max_examples=8, deadline=None, phases=PHASES)
@given(conditions=conditions, starts_at_s=st.floats(1.0, 40.0))
def test_a_new_process_opens_no_quota(conditions: dict[str, float], starts_at_s: float) -> None:
    world = World(LIMITS, **conditions)  # type: ignore[arg-type]
    warmed(world, 2)
    for one in world.processes:
        world.demand(one, 40.0, world.ask)
    drained(world)
    world.at(world.now_s + starts_at_s, lambda: world.demand(world.start(), 40.0, world.ask))
    world.run(MINUTE_S)
    assert world.admitted == pytest.approx(PER_MINUTE, rel=0.01)


def test_processes_that_are_replaced_one_after_the_other_keep_the_total() -> None:
    world = World(LIMITS, seed=3, loss=0.1)
    warmed(world, 3)
    for one in world.processes:
        world.demand(one, 40.0, world.ask)
    drained(world)
    for number in range(3):

        def replace(number: int = number) -> None:
            world.demand(world.start(), 40.0, world.ask)
            world.quit(world.processes[number])

        world.at(world.now_s + 10.0 * (number + 1), replace)
    world.run(MINUTE_S)
    assert world.admitted == pytest.approx(PER_MINUTE, rel=0.01)


def test_a_lone_process_admits_at_once_and_waits_for_nobody() -> None:
    ledger = Ledger(b"a" * 8, 0.0)
    ledger.list_peers([], 0.0)
    ledger.tick(0.0)
    assert ledger.joined
    account = ledger.holdings(TENANT, LIMITS, 0.0).requests
    assert account is not None
    assert account.level == pytest.approx(DEPTH)


def test_credit_of_an_idle_process_reaches_the_busy_one_within_two_rounds() -> None:
    world = World(LIMITS, delay_s=0.005)
    warmed(world, 4)
    busy = world.processes[0]
    for _ in range(int(DEPTH)):
        world.ask(busy)
    assert busy.admitted == pytest.approx(DEPTH / 4, abs=2)
    world.run(0.5)
    for _ in range(int(DEPTH)):
        world.ask(busy)
    assert busy.admitted == pytest.approx(DEPTH, rel=0.1)


# --- what is open at the same time -----------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None, phases=PHASES)
@given(conditions=conditions, processes=st.integers(1, 5), limit=st.integers(1, 80), skew=st.booleans())
def test_what_is_open_never_passes_the_limit_and_reaches_it(
    conditions: dict[str, float], processes: int, limit: int, skew: bool
) -> None:
    world = World(Limits(concurrency=limit), **conditions)  # type: ignore[arg-type]
    warmed(world, processes)
    busy = world.processes[:1] if skew else world.processes
    for one in busy:
        world.demand(one, 100.0, lambda process: world.open(process, world.rng.uniform(0.5, 3.0)))
    world.run(20.0)
    assert world.most_open == limit


def test_slots_of_a_dead_process_are_free_again() -> None:
    world = World(Limits(concurrency=40), seed=1)
    warmed(world, 2)
    for one in world.processes:
        world.demand(one, 100.0, lambda process: world.open(process, 2.0))
    world.run(10.0)
    world.kill(world.processes[1])
    world.run(8.0)
    assert world.processes[0].open >= 38
    assert world.most_open <= 40


@settings(deadline=None)
@given(st.integers(0, 500), st.lists(st.integers(0, 200), min_size=1, max_size=8))
def test_fair_shares_use_the_limit_and_favour_nobody(limit: int, demands: list[int]) -> None:
    shares = fair_shares(limit, demands)
    assert sum(shares) == limit
    cut = [share for share, demand in zip(shares, demands, strict=True) if share < demand]
    if cut:
        assert max(shares) <= min(cut) + 1


# --- the wire ---------------------------------------------------------------------------------------------------------


def message(entries: int) -> Message:
    those = tuple((Name(Book.OPEN, f"tenant-{number}"), Claim(number, 2 * number)) for number in range(entries))
    return Message(b"a" * 8, 7, True, True, False, b"b" * 8, 6, those)


def test_a_long_message_is_several_small_datagrams_that_say_the_same() -> None:
    datagrams = encode(message(500), SECRET)
    assert len(datagrams) > 5
    assert max(map(len, datagrams)) <= DATAGRAM_BYTES
    decoded = [decode(one, SECRET) for one in datagrams]
    assert [entry for one in decoded if one for entry in one.entries] == list(message(500).entries)


@settings(deadline=None)
@given(st.binary(max_size=1300))
def test_a_strangers_datagram_is_no_message(data: bytes) -> None:
    assert decode(data, SECRET) is None
    assert decode(b"FTQ1" + data, SECRET) is None


@settings(deadline=None)
@given(st.integers(0, 2000), st.integers(1, 255))
def test_a_changed_datagram_is_no_message(at: int, by: int) -> None:
    data = bytearray(encode(message(3), SECRET)[0])
    data[at % len(data)] ^= by
    assert decode(bytes(data), SECRET) is None


def test_old_words_change_nothing() -> None:
    world = World(LIMITS)
    warmed(world, 2)
    receiver = world.processes[0].ledger
    peer = world.processes[1].ledger
    stale = dataclasses.replace(message(0), sender=peer.me, seq=1, entries=((Name(Book.OPEN, TENANT), Claim(9, 9)),))
    slots = receiver.holdings(TENANT, Limits(concurrency=10), world.now_s).open
    assert slots is not None
    receiver.hear(stale, 1, world.now_s)
    world.run(1.0)
    assert slots.claimed == 5


def test_a_process_that_is_back_under_its_address_is_a_new_one_at_once() -> None:
    world = World(LIMITS)
    warmed(world, 2)
    ledger = world.processes[0].ledger
    again = dataclasses.replace(message(0), sender=b"z" * 8, seq=1)
    ledger.hear(again, 1, world.now_s)
    assert ledger.members == 2
