"""The policies as functions: who is chosen, and what holds whatever the fleet looks like."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing import scoring
from gateway.routing.choosing import Why, choose
from gateway.routing.hotspots import HotSpotPolicy, Spot, heats, skew
from gateway.routing.keys import NO_KEYS, Keys
from gateway.routing.ring import Ring, limit
from gateway.routing.scoring import Facts
from gateway.routing.split import mirrored_to, revision_for
from gateway.routing.terms import Policy, RoutingTerms, TrafficShare


@dataclass
class One:
    """A candidate, priced."""

    in_flight: int = 0
    share: float = 1.0
    cost: float = 1.0
    capacity: int = 32


def priced(policy: Policy, all_: list[Facts], in_flight: list[int]) -> list[One]:
    load = scoring.fleet_load(all_, in_flight)
    lines = scoring.lines(policy, all_, load)
    return [
        One(count, one.share, line.at(count), one.slots)
        for one, count, line in zip(all_, in_flight, lines, strict=True)
    ]


facts = st.builds(
    Facts, share=st.floats(0.05, 1.0), slots=st.integers(1, 256), others=st.integers(0, 300),
    utilisation=st.floats(0, 1), kv_usage=st.floats(0, 1), latency_s=st.none() | st.floats(1e-4, 60),
    near=st.booleans(),
)  # fmt: skip
fleets = st.lists(st.tuples(facts, st.integers(0, 300)), min_size=1, max_size=12)
scored = st.sampled_from([Policy.ADAPTIVE, Policy.LEAST_CONNECTIONS, Policy.RESPONSE_TIME])


@given(st.sampled_from(Policy), fleets, st.integers(0, 10**6), st.none() | st.integers(0, 2**64 - 1))
def test_every_policy_chooses_one_of_the_candidates(
    policy: Policy, fleet: list[tuple[Facts, int]], turn: int, key: int | None
) -> None:
    all_ = priced(policy, [one for one, _ in fleet], [count for _, count in fleet])
    ring = Ring([f"pod-{number}" for number in range(len(all_))])
    choice = choose(RoutingTerms(policy), all_, ring, Keys(key, key), turn)
    assert 0 <= choice.at < len(all_)


@given(scored, fleets, st.integers(0, 100))
def test_a_scored_policy_chooses_the_lowest_cost_and_costs_are_above_zero(
    policy: Policy, fleet: list[tuple[Facts, int]], turn: int
) -> None:
    all_ = priced(policy, [one for one, _ in fleet], [count for _, count in fleet])
    choice = choose(RoutingTerms(policy), all_, None, NO_KEYS, turn)
    assert all(one.cost > 0 for one in all_)
    assert all_[choice.at].cost == min(one.cost for one in all_)


@given(scored, fleets)
def test_one_more_request_never_makes_an_endpoint_cheaper(policy: Policy, fleet: list[tuple[Facts, int]]) -> None:
    all_, counts = [one for one, _ in fleet], [count for _, count in fleet]
    for line, count in zip(scoring.lines(policy, all_, scoring.fleet_load(all_, counts)), counts, strict=True):
        assert line.at(count + 1) > line.at(count)


@given(facts, st.floats(0, 1.5))
def test_each_sign_of_load_makes_an_endpoint_dearer(one: Facts, load: float) -> None:
    quick = replace(one, latency_s=0.001)
    base = replace(one, utilisation=0.2, kv_usage=0.2, others=1, latency_s=0.001, near=True, share=1.0)
    worse = [
        replace(base, utilisation=0.9), replace(base, kv_usage=0.9), replace(base, others=200),
        replace(base, latency_s=10.0), replace(base, near=False), replace(base, share=0.5),
    ]  # fmt: skip
    for bad in worse:
        good_line, bad_line, _ = scoring.lines(Policy.ADAPTIVE, [base, bad, quick], load)
        assert bad_line.at(3) > good_line.at(3)


@given(st.floats(-1, 3))
def test_the_weights_add_up_to_one_at_every_load(load: float) -> None:
    weights = scoring.weights_at(load)
    assert weights.utilisation + weights.kv + weights.queue + weights.latency == pytest.approx(1.0)


def test_with_room_the_quick_one_is_chosen_and_near_the_limit_the_one_with_room_in_its_cache() -> None:
    quick, roomy = Facts(latency_s=0.1, kv_usage=0.95), Facts(latency_s=0.4, kv_usage=0.5)
    for load, expected in ((0.0, 0), (1.0, 1)):
        lines = scoring.lines(Policy.ADAPTIVE, [quick, roomy], load)
        assert min((0, 1), key=lambda index: lines[index].at(0)) == expected


@given(st.integers(1, 12), st.integers(0, 100))
def test_equals_take_turns(count: int, turn: int) -> None:
    for policy in (Policy.ADAPTIVE, Policy.LEAST_CONNECTIONS, Policy.ROUND_ROBIN):
        all_ = [One() for _ in range(count)]
        chosen = {choose(RoutingTerms(policy), all_, None, NO_KEYS, turn + step).at for step in range(count)}
        assert len(chosen) == count


@pytest.mark.parametrize("policy", [Policy.LEAST_CONNECTIONS, Policy.ADAPTIVE])
def test_one_that_returns_gets_its_share_only(policy: Policy) -> None:
    all_ = [Facts(slots=4096), Facts(slots=4096, share=0.1)]
    counts = [0, 0]
    for turn in range(1100):
        candidates = priced(policy, all_, counts)
        counts[choose(RoutingTerms(policy), candidates, None, NO_KEYS, turn).at] += 1
    assert counts[1] <= 110


def test_in_turn_one_that_returns_gets_its_share_of_its_turns() -> None:
    all_ = [One(), One(share=0.1), One()]
    count = Counter(choose(RoutingTerms(Policy.ROUND_ROBIN), all_, None, NO_KEYS, turn).at for turn in range(3000))
    assert 80 <= count[1] <= 120


# --- keeping together what belongs together ---------------------------------------------------------------------------

keys = st.integers(0, 2**64 - 1)
names = st.lists(st.integers(0, 500), min_size=1, max_size=16, unique=True).map(lambda all_: [f"p{n}" for n in all_])


@given(names, keys)
def test_a_walk_visits_every_endpoint_once_and_its_home_first(all_: list[str], key: int) -> None:
    ring = Ring(all_)
    walked = list(ring.walk(key))
    assert sorted(walked) == list(range(len(all_)))
    assert walked[0] == ring.home(key)


@given(names, keys, st.randoms())
def test_when_an_endpoint_goes_only_its_own_keys_move(all_: list[str], key: int, rng: object) -> None:
    if len(all_) < 2:
        return
    home = all_[Ring(all_).home(key)]
    for gone in all_:
        left = [one for one in all_ if one != gone]
        if gone != home:
            assert left[Ring(left).home(key)] == home


@given(names, keys, st.lists(st.integers(0, 60), min_size=16, max_size=16), st.floats(1.0, 3.0))
def test_the_load_stays_bounded_and_the_order_is_the_ring_s(
    all_: list[str], key: int, loads: list[int], bound: float
) -> None:
    candidates = [One(in_flight=load, capacity=8) for load in loads[: len(all_)]]
    ring = Ring(all_)
    terms = RoutingTerms(Policy.PREFIX, load_bound=bound)
    choice = choose(terms, candidates, ring, Keys(prefix=key), 0)
    most = limit(sum(one.in_flight for one in candidates), len(candidates), bound, 8)
    if choice.why is Why.ONLY:
        return
    assert candidates[choice.at].in_flight < most
    for index in ring.walk(key):
        if index == choice.at:
            break
        assert candidates[index].in_flight >= most, "nobody with room was passed over"
    assert (choice.why is Why.PREFIX_HOME) == (choice.at == ring.home(key))


def test_the_same_prompt_goes_to_the_same_worker_until_that_is_too_full() -> None:
    ring, key = Ring(["a", "b", "c"]), Keys(prefix=12345)
    candidates = [One(), One(), One()]
    home = ring.home(12345)
    terms = RoutingTerms(Policy.PREFIX)
    for _ in range(5):
        assert choose(terms, candidates, ring, key, 7).at == home
    candidates[home].in_flight = 40
    choice = choose(terms, candidates, ring, key, 7)
    assert (choice.at != home, choice.why) == (True, Why.PREFIX_SPILLED)


def test_a_request_without_a_session_goes_by_cost() -> None:
    candidates = [One(cost=3.0), One(cost=1.0)]
    choice = choose(RoutingTerms(Policy.SESSION), candidates, Ring(["a", "b"]), NO_KEYS, 0)
    assert choice == (1, Why.LEAST_COST)


# --- splitting --------------------------------------------------------------------------------------------------------


def split(*weights: int) -> list[TrafficShare]:
    return [TrafficShare(f"rev{number}", weight) for number, weight in enumerate(weights)]


@given(keys, st.integers(0, 100), st.integers(0, 100))
def test_a_session_moves_only_towards_the_revision_whose_weight_grows(key: int, before: int, after: int) -> None:
    low, high = sorted((before, after))
    first = revision_for(key, split(100 - low, low))
    second = revision_for(key, split(100 - high, high))
    assert first == second or second == "rev1"


def test_the_split_is_by_weight() -> None:
    count = Counter(revision_for(key * 7919, split(90, 10)) for key in range(10_000))
    assert 900 <= count["rev1"] <= 1100
    assert revision_for(1, split(100, 0)) == "rev0"
    assert revision_for(1, split(0, 0)) is None


def test_a_mirror_gets_its_percent_of_what_others_answer_and_never_its_own() -> None:
    traffic = [TrafficShare("old", 100), TrafficShare("new", 0, mirror=25)]
    copies = [mirrored_to(number / 1000, "old", traffic) for number in range(1000)]
    assert sum(map(len, copies)) == 250
    assert mirrored_to(0.0, "new", traffic) == []


# --- hot spots --------------------------------------------------------------------------------------------------------


def test_one_that_holds_far_more_than_its_equals_is_cooled_after_three_sweeps_and_no_sooner() -> None:
    policy = HotSpotPolicy()
    spots = [Spot(0.9), Spot(0.1), Spot(0.1), Spot(0.1)]
    for sweep in range(1, 4):
        found = heats(spots, policy)
        assert [one.cools for one in found] == [sweep == 3, False, False, False]
        spots = [Spot(spot.load, heat.hot_sweeps) for spot, heat in zip(spots, found, strict=True)]
    assert "load 0.90" in found[0].message


@given(st.lists(st.floats(0, 4), max_size=12))
def test_equal_loads_have_no_hot_spot_and_the_skew_is_at_least_one(loads: list[float]) -> None:
    assert skew(loads) >= 1.0 - 1e-9
    even = [Spot(loads[0] if loads else 0.0, 6)] * len(loads)
    assert all(heat.hot_sweeps == 5 for heat in heats(even, HotSpotPolicy()))


@given(st.lists(st.builds(Spot, st.floats(0, 4), st.integers(0, 6)), min_size=1, max_size=12))
def test_never_are_all_hot(spots: list[Spot]) -> None:
    found = heats([replace(one, hot_sweeps=0) for one in spots], HotSpotPolicy(sweeps=1))
    assert not all(one.cools for one in found)
