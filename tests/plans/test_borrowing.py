"""Shares of a cohort's quota: what holds for every cohort, at every step, and where the steps lead."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.plans.borrowing import Asked, Member, allowed, fair, fill
from controllers.plans.quota import Grant, borrowed_of, plan_quota
from controllers.plans.snapshot import Claim, Neighbour
from controllers.plans.tenancy import Tenant
from crds.sla import Priority
from tests.gen import claim, tenant

LATE = "2026-02-01T00:00:00Z"
_SOME = st.none() | st.integers(0, 12)


@st.composite
def cohorts(draw: st.DrawFn) -> list[Member]:
    """What is held fits into the nominal sum, as it does after every step."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 12),
                st.integers(0, 30),
                st.integers(1, 9),
                _SOME,
                _SOME,
                st.integers(1, 5),
                st.floats(0, 20),
            ),
            min_size=1,
            max_size=5,
        )
    )
    left = sum(row[0] for row in rows)
    members = []
    for number, (nominal, wish, weight, limit, lending, each, used) in enumerate(rows):
        held = draw(st.integers(0, min(left, 30)))
        left -= held
        members.append(Member(f"t{number}", nominal, max(wish, held), held, weight, limit, lending, each, used))
    return members


def stepped(members: Sequence[Member]) -> list[Member]:
    """Everybody acts once: grows to what it is allowed, or gives one back."""
    now = allowed(members)
    return [dataclasses.replace(one, held=max(now[one.name], one.held - 1)) for one in members]


@settings(deadline=None, max_examples=60)
@given(cohorts())
def test_at_no_step_is_more_granted_than_the_cohort_has_or_to_anybody_than_its_limit(members: list[Member]) -> None:
    whole = sum(one.nominal for one in members)
    now = allowed(members)
    assert sum(now.values()) <= whole
    assert sum(one.held for one in stepped(members)) <= whole
    for one in members:
        assert now[one.name] <= one.wish
        assert one.limit is None or now[one.name] <= one.nominal + one.limit
        assert now[one.name] >= min(one.held, one.nominal), "nobody falls below its own"


@settings(deadline=None, max_examples=60)
@given(cohorts())
def test_within_a_bounded_number_of_steps_everybody_has_its_own_and_nothing_moves_any_more(
    members: list[Member],
) -> None:
    goal = fair(members)
    for _ in range(1 + sum(one.held for one in members)):
        members = stepped(members)
    assert {one.name: one.held for one in members} == goal
    assert all(one.held >= min(one.wish, one.nominal) for one in members)
    assert stepped(members) == members
    settled = [dataclasses.replace(one, wish=max(one.held, one.wish)) for one in members]
    assert fair(settled) == goal


@settings(deadline=None, max_examples=60)
@given(cohorts())
def test_what_is_lent_is_used_up_and_no_lender_lends_more_than_it_said(members: list[Member]) -> None:
    goal = fair(members)
    borrowed = sum(goal[one.name] - one.own for one in members)
    lent = sum(one.lent for one in members)
    assert borrowed == min(lent, sum(one.borrowing for one in members))
    assert all(one.lending is None or one.lent <= one.lending for one in members)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 500), st.lists(st.integers(1, 1000), min_size=1, max_size=8))
def test_borrowers_who_want_all_they_can_get_share_by_weight(amount: int, weights: list[int]) -> None:
    given_ = fill(amount, {str(at): Asked(1000, one) for at, one in enumerate(weights)})
    assert sum(given_.values()) == amount
    for at, weight in enumerate(weights):
        assert abs(given_[str(at)] - amount * weight / sum(weights)) <= 1 + 1e-9, "rounded down, and one more at most"


def test_a_worker_that_lacks_three_of_four_is_completed_before_another_begins() -> None:
    asked = {"a": Asked(10, 1, has=1, each=4), "b": Asked(10, 1, each=2)}
    assert fill(5, asked) == {"a": 3, "b": 2}


def test_what_does_not_divide_goes_to_who_borrowed_least_for_its_weight() -> None:
    lends = Member("c", nominal=1, wish=0, held=0)
    heavy = Member("b", nominal=0, wish=5, held=0, weight=2, used=4.0)
    light = Member("a", nominal=0, wish=5, held=0, weight=1, used=3.0)
    assert fair([light, heavy, lends]) == {"a": 0, "b": 1, "c": 0}
    assert fair([light, dataclasses.replace(heavy, used=6.5), lends]) == {"a": 1, "b": 0, "c": 0}


def test_a_lender_that_wants_its_own_back_takes_it_from_whoever_is_most_over_its_share() -> None:
    lender = Member("lender", nominal=8, wish=2, held=2)
    heavy, light = Member("heavy", 0, 10, 4, weight=3), Member("light", 0, 10, 2, weight=1)
    assert fair([lender, heavy, light]) == {"lender": 2, "heavy": 5, "light": 1}
    back = dataclasses.replace(lender, wish=4)
    assert fair([back, heavy, light]) == {"lender": 4, "heavy": 3, "light": 1}
    assert allowed([back, heavy, light])["lender"] == 2, "not before a borrower gave it back"


# --- the services of one Tenant ---------------------------------------------------------------------------------------


def borrower(name: str = "acme", gpus: int = 4, **borrowing: Any) -> Tenant:
    made = tenant(name, quota={"gpus": gpus})
    spec = made.spec.model_dump(by_alias=True, exclude_none=True) | {"borrowing": {"cohort": "lab"} | borrowing}
    return dataclasses.replace(made, spec=type(made.spec).model_validate(spec))


def lender(wanted: int, held: int, gpus: int = 4) -> Neighbour:
    return Neighbour(borrower("other", gpus), (claim("theirs", wanted=wanted, held=held, gpus_each=1),))


def asks(wanted: int, held: int, **fields: Any) -> Claim:
    return dataclasses.replace(claim("chat", wanted=wanted, held=held, gpus_each=1), **fields)


def test_what_others_leave_is_borrowed_and_the_sum_is_said() -> None:
    grant = plan_quota(borrower(), asks(8, 4), [], [lender(wanted=2, held=2)])
    assert (grant.replicas, grant.borrows) == (6, True)
    assert grant.by == "Tenant 'acme': quota of 4 GPUs, borrows 2 GPUs of cohort 'lab'"
    assert grant.finding
    assert grant.finding.message.startswith(
        "Tenant 'acme' asks 8 GPUs; its quota is 4, borrows 2 GPUs of cohort 'lab', which leaves 'chat' 6 of 8 workers."
    )


def test_without_borrowing_the_quota_is_all_and_what_runs_is_kept() -> None:
    alone = plan_quota(tenant(quota={"gpus": 4}), asks(8, 6), [], [])
    assert (alone.replicas, alone.borrows) == (6, False)


def test_within_its_own_quota_nobody_borrows() -> None:
    for wanted in (2, 4):
        assert not plan_quota(borrower(), asks(wanted, wanted), [], [lender(wanted=0, held=0)]).borrows


def test_a_lender_lends_no_more_than_it_says() -> None:
    lends = borrower("other", lendingLimit={"gpus": 1})
    assert plan_quota(borrower(), asks(8, 4), [], [Neighbour(lends, ())]).replicas == 5


def test_what_is_neither_borrowed_nor_lent_is_not_spoken_of() -> None:
    grant = plan_quota(borrower(), asks(8, 4), [], [lender(wanted=4, held=4)])
    assert (grant.replicas, grant.by) == (4, "Tenant 'acme': quota of 4 GPUs")


@pytest.mark.parametrize(("held", "over"), [(3, 0), (4, 0), (6, 2), (9, 5)])
def test_what_runs_over_the_quota_is_borrowed(held: int, over: int) -> None:
    assert borrowed_of(borrower(), [asks(held - 1, held - 1), asks(1, 1, name="batch")]) == {"gpus": over}


def test_a_limit_bounds_what_is_borrowed() -> None:
    assert plan_quota(borrower(limit={"gpus": 1}), asks(8, 4), [], [lender(0, 0)]).replicas == 5


def test_what_is_wanted_back_goes_one_worker_a_decision_down_to_the_own_quota() -> None:
    held, seen = 8, []
    for _ in range(6):
        grant = plan_quota(borrower(), asks(8, held), [], [lender(wanted=4, held=0)])
        held = grant.replicas
        seen.append((held, grant.finding.reason if grant.finding else None))
        assert grant.reclaims is (seen[-1][1] == "QuotaReclaimed")
    assert seen == [*((number, "QuotaReclaimed") for number in (7, 6, 5, 4)), *[(4, "QuotaExceeded")] * 2]


def test_the_reclaim_says_its_arithmetic_and_needs_nobody() -> None:
    finding = plan_quota(borrower(), asks(8, 8), [], [lender(wanted=3, held=0)]).finding
    assert finding
    assert finding.message == (
        "Tenant 'acme' has 8 GPUs; its quota is 4, and cohort 'lab' lends it 1 now, so 'chat' goes from 8 to 7 workers."
    )
    assert not finding.needs_person
    last = plan_quota(borrower(), asks(8, 5), [], [lender(wanted=4, held=3)]).finding
    assert last
    assert "cohort 'lab' lends it 0 now, so 'chat' goes from 5 to 4 workers" in last.message


def test_where_history_counts_against_a_tenant_the_sentence_has_its_arithmetic() -> None:
    mine = dataclasses.replace(borrower(), borrowed={"gpus": 4.0})
    other = dataclasses.replace(borrower("other"), borrowed={"gpus": 0.5})
    idle = Neighbour(borrower("idle", gpus=8), ())
    claims = (claim("theirs", wanted=12, held=4, gpus_each=1),)
    finding = plan_quota(mine, asks(12, 12), [], [idle, Neighbour(other, claims)]).finding
    assert finding
    assert finding.message == (
        "Tenant 'acme' has 12 GPUs; its quota is 4, and cohort 'lab' lends it 1 now, so 'chat' goes from 12 to 11 "
        "workers. Its weight 1 counts 0.56 now: lately it borrowed 4.0 GPUs on average, and 2.2 are its due."
    )


def test_the_lowest_class_gives_back_first_then_the_youngest() -> None:
    back = [lender(wanted=1, held=0)]
    urgent, batch = asks(4, 4, priority=Priority.P1, created=LATE), asks(4, 4, name="batch", priority=Priority.P3)
    assert plan_quota(borrower(), urgent, [batch], back).replicas == 4
    assert plan_quota(borrower(), batch, [urgent], back).replicas == 3
    young = dataclasses.replace(batch, priority=Priority.P1, created="2026-03-01T00:00:00Z")
    assert plan_quota(borrower(), urgent, [young], back).replicas == 4
    assert plan_quota(borrower(), young, [urgent], back).replicas == 3


@pytest.mark.parametrize(("borrows", "left"), [(4, 0), (3, 1)])
def test_a_lender_that_waits_says_what_is_on_loan(borrows: int, left: int) -> None:
    mine = Neighbour(borrower(), (asks(4 + borrows, 4 + borrows),))
    grant = plan_quota(borrower("other"), claim("theirs", wanted=2, gpus_each=1), [], [mine])
    assert grant.replicas == left
    assert grant.by == f"Tenant 'other': quota of 4 GPUs, {borrows} GPUs still on loan to cohort 'lab'"


def test_the_policys_own_wish_is_seen_where_the_quota_bounds_what_is_desired() -> None:
    theirs = claim("theirs", wanted=1, held=1, gpus_each=1)
    waits = dataclasses.replace(theirs, wished=claim("theirs", wanted=4, gpus_each=1).wanted)
    grants = [plan_quota(borrower(), asks(8, 7), [], [Neighbour(borrower("other"), (one,))]) for one in (theirs, waits)]
    assert [one.replicas for one in grants] == [7, 6]


def test_what_is_kept_after_the_load_fell_is_not_taken_where_nobody_wants_it() -> None:
    calm = asks(6, 6, wished=claim("chat", wanted=1, gpus_each=1).wanted)
    assert plan_quota(borrower(), calm, [], [lender(0, 0)]) == Grant(6, borrows=True)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 8), st.integers(0, 8), st.integers(1, 3), st.integers(1, 3))
def test_services_of_two_tenants_that_act_in_turn_come_to_rest_within_the_cohort(
    first: int, second: int, first_each: int, second_each: int
) -> None:
    """Workers of several GPUs: what does not fill a worker stays unused, and nothing moves to and fro."""
    wanted, each = {"a": first, "b": second}, {"a": first_each, "b": second_each}
    held = {"a": 0, "b": 0}
    tenants = {name: borrower(name) for name in held}

    def claimed(name: str) -> Claim:
        return claim(name, wanted=wanted[name], held=min(held[name], wanted[name]), gpus_each=each[name])

    def turn() -> Mapping[str, int]:
        for name, other in (("a", "b"), ("b", "a")):
            cohort = [Neighbour(tenants[other], (claimed(other),))]
            held[name] = plan_quota(tenants[name], claimed(name), [], cohort).replicas
            assert sum(held[one] * each[one] for one in held) <= 8
        return dict(held)

    for _ in range(20):
        turn()
    assert turn() == turn()
    assert all(held[one] >= min(wanted[one], 4 // each[one]) for one in held)
