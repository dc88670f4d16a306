"""The pure parts: routing, health, retries, names, keys, and what is kept of cluster objects."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import UNKNOWN_REVISION, Endpoint, revision_of
from gateway.health.passive import Health, HealthPolicy, failed, is_ejected, next_change_s, share, succeeded
from gateway.identity import CACHE_ENTRIES, Authenticator, keyring_of
from gateway.kept import keep_slice, merge
from gateway.retries import RetryBudget, RetryPolicy, delay_s
from gateway.routing.selection import Candidate, select
from tests.gateway.harness import EMPTY, keyring

POLICY = HealthPolicy()
candidates = st.lists(st.builds(Candidate, st.booleans(), st.booleans(), st.booleans(), st.booleans()), max_size=12)


# --- routing ----------------------------------------------------------------------------------------------------------


@given(candidates)
def test_only_ready_endpoints_are_chosen_and_ejected_ones_only_when_nothing_else_serves(all_: list[Candidate]) -> None:
    serving = {i for i, one in enumerate(all_) if one.ready and not one.terminating and not one.draining}
    healthy = {i for i in serving if not all_[i].ejected}
    selection = select(all_)
    assert set(selection.usable) == (healthy or serving)
    assert selection.reason == ("Healthy" if healthy else "AllEjected" if serving else "NoneReady")


# --- health -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(0, 3)), max_size=200), st.integers(1, 6))
def test_never_more_than_half_are_ejected_and_never_the_last(steps: list[tuple[int, bool, float]], count: int) -> None:
    healths = [Health()] * count
    now_s = 100.0
    for which, good, passed_s in steps:
        now_s += passed_s
        index = which % count
        if good:
            healths[index] = succeeded(healths[index], now_s, POLICY)
        else:
            out = sum(is_ejected(one, now_s) for i, one in enumerate(healths) if i != index)
            healths[index] = failed(healths[index], now_s, POLICY, endpoints=count, ejected=out).health
        ejected = sum(is_ejected(one, now_s) for one in healths)
        assert ejected <= count // 2
        assert ejected < count
        assert all(0.0 < share(one, now_s, POLICY) <= 1.0 for one in healths)


def fail(health: Health, now_s: float) -> Health:
    return failed(health, now_s, POLICY, endpoints=4, ejected=0).health


def test_three_failures_in_a_row_eject_and_a_success_between_does_not() -> None:
    health = fail(fail(Health(), 0.0), 0.0)
    assert not is_ejected(health, 0.0)
    assert not is_ejected(fail(succeeded(health, 0.0, POLICY), 0.0), 0.0)
    verdict = failed(health, 0.0, POLICY, endpoints=4, ejected=0)
    assert (verdict.ejects, verdict.message) == (True, "3 failures in a row ≥ 3: out for 5 s, 1 of 4")


def test_it_returns_slowly_and_goes_again_at_its_first_failure_for_twice_as_long() -> None:
    health = fail(fail(fail(Health(), 0.0), 0.0), 0.0)
    assert [round(share(health, now_s, POLICY), 2) for now_s in (5.0, 10.0, 15.0)] == [0.1, 0.55, 1.0]
    again = fail(succeeded(health, 6.0, POLICY), 7.0)
    assert is_ejected(again, 16.9)
    assert not is_ejected(again, 17.1)
    assert succeeded(again, 40.0, POLICY) == Health()


@given(st.floats(0, 100), st.floats(0, 100))
def test_nothing_changes_before_the_next_change(ejected_until_s: float, now_s: float) -> None:
    health = Health(ejections_in_a_row=1, ejected_until_s=ejected_until_s)
    change_s = next_change_s(health, now_s, POLICY)
    assert change_s > now_s
    if is_ejected(health, now_s) and change_s != float("inf"):
        assert is_ejected(health, (now_s + change_s) / 2)


# --- retries ----------------------------------------------------------------------------------------------------------


def test_the_first_retry_comes_after_10_ms_and_the_others_double_from_100_ms_with_jitter() -> None:
    policy, rng = RetryPolicy(), random.Random(1)
    assert delay_s(1, policy, rng) == 0.01
    for retry, middle_s in ((2, 0.1), (3, 0.2), (4, 0.4), (9, 2.0)):
        waits = [delay_s(retry, policy, rng) for _ in range(200)]
        assert middle_s * 0.5 <= min(waits) < middle_s < max(waits) <= middle_s * 1.5


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 4)), max_size=300))
def test_retries_stay_within_a_fifth_of_the_requests_plus_the_floor(steps: list[tuple[bool, float]]) -> None:
    policy = RetryPolicy()
    budget, now_s = RetryBudget(policy), 1000.0
    requests: list[float] = []
    retries: list[float] = []
    for is_request, passed_s in steps:
        now_s += passed_s
        if is_request:
            budget.request(now_s)
            requests.append(now_s)
        elif budget.spend(now_s):
            retries.append(now_s)
        recent = [one for one in retries if one > now_s - policy.window_s + 1]
        assert len(recent) <= 30 + 0.2 * sum(one > now_s - policy.window_s for one in requests) + 1e-9


def test_a_spent_budget_is_earned_back_by_time_and_by_requests() -> None:
    budget = RetryBudget(RetryPolicy())
    assert sum(budget.spend(100.0) for _ in range(100)) == 30
    for _ in range(10):
        budget.request(100.0)
    assert [budget.spend(100.0) for _ in range(3)] == [True, True, False]
    assert sum(budget.spend(110.0) for _ in range(100)) == 30


# --- names and keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "pod", "revision"),
    [
        ("chat", "chat-6f9c1-7d4b9c-x2k4z", "6f9c1"),
        ("chat-large", "chat-large-6f9c1-7d4b9c-x2k4z", "6f9c1"),
        ("a" * 40, "a" * 40 + "-6f9c1abcde-7d4b9c8x2k4z", "6f9c1abcde"),  # the middle is shortened in long names
        ("chat", "other-6f9c1-7d4b9c-x2k4z", UNKNOWN_REVISION),
        ("chat", "chat", UNKNOWN_REVISION),
        ("chat", "chat-6f9c1", UNKNOWN_REVISION),
        ("chat", "10.0.0.7", UNKNOWN_REVISION),
    ],
)
def test_the_revision_is_read_from_the_pod_s_name(service: str, pod: str, revision: str) -> None:
    assert revision_of(service, pod) == revision


def test_two_tenants_with_one_key_are_refused_by_name() -> None:
    digest = EMPTY.digest(b"sk-shared").hex()
    with pytest.raises(ValueError, match="'acme' and 'globex' share"):
        keyring_of(b"p", {"acme": [digest], "globex": [digest]})


def test_the_cache_of_keys_is_bounded_and_no_key_shows() -> None:
    authenticator = Authenticator()
    keys = [f"sk-{number}" for number in range(CACHE_ENTRIES + 10)]
    ring = keyring(acme=keys)
    authenticator.replace(ring)
    for key in keys:
        assert authenticator.tenant(f"Bearer {key}".encode()) == "acme"
    assert len(authenticator._known) <= CACHE_ENTRIES
    assert "sk-" not in repr(ring)
    assert "p" * 32 not in repr(ring)


# --- EndpointSlices ---------------------------------------------------------------------------------------------------


def test_a_slice_is_read_as_its_api_says() -> None:
    slice_ = {
        "metadata": {"namespace": "demo", "name": "s", "labels": {"foretide.dev/inference-service": "chat"}},
        "ports": [{"name": "metrics", "port": 9}, {"name": "http", "port": 8000}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "chat-aa-1-2"}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": False, "serving": True, "terminating": True}},
            {"addresses": []},
        ],
    }
    first, second = keep_slice(slice_).endpoints
    assert first == Endpoint("10.0.0.1", 8000, "chat-aa-1-2", "aa", ready=True, terminating=False)
    assert (second.ready, second.terminating, second.revision) == (False, True, UNKNOWN_REVISION)


def test_an_endpoint_in_two_slices_is_one_and_ready_if_either_says_so() -> None:
    ready = Endpoint("10.0.0.1", 8000, "chat-aa-1-2", "aa")
    assert merge([(replace(ready, ready=False),), (ready,)]) == (ready,)
    assert merge([(ready,), (replace(ready, ready=False),)]) == (ready,)
