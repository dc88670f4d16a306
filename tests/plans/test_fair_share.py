"""Fair share over time: long-run shares, bounded credit and debt, and an average that nothing but time changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.plans.borrowing import Member, allowed, fair
from controllers.plans.fair_share import (
    MOST,
    Usage,
    half_life_s,
    is_due,
    period_s,
    published,
    standings,
    turn_of,
    until_due,
)
from controllers.plans.tenancy import Tenant
from crds.fields import seconds
from crds.tenant import FairShare, TenantSpec

HOUR_S = 3600.0
HALF_LIFE_S = 24 * HOUR_S
PLENTY = 10_000
Wishes = Callable[[float], Sequence[int]]
"""What each borrower wants, by time in half-lives."""


@dataclasses.dataclass
class Cohort:
    """A lender of `lent` units that wants nothing, and borrowers that follow what they are allowed."""

    lent: int
    weights: Sequence[int]
    each: Sequence[int]
    wishes: Wishes = lambda _: ()
    now_s: float = 0.0
    history: list[Sequence[int]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.usages = [Usage(0.0) for _ in self.weights]
        self.held = [0 for _ in self.weights]

    def members(self) -> list[Member]:
        wishes = self.wishes(self.now_s / HALF_LIFE_S)
        borrowers = [
            Member(
                f"t{at}", 0, max(wishes[at], self.held[at]), self.held[at], weight, each=each,
                used=self.usages[at].average.get("gpus", 0.0),
            )
            for at, (weight, each) in enumerate(zip(self.weights, self.each, strict=True))
        ]  # fmt: skip
        return [Member("lender", self.lent, 0, 0), *borrowers]

    def run(self, half_lives: float) -> None:
        period = period_s(HALF_LIFE_S)
        for _ in range(round(half_lives * HALF_LIFE_S / period)):
            wishes = self.wishes(self.now_s / HALF_LIFE_S)
            self.held = [min(held, wish) for held, wish in zip(self.held, wishes, strict=True)]
            # Within a period everybody comes to rest: first who has too much, then who has too little.
            for _ in range(2):
                may = allowed(self.members())
                self.held = [_workers(min(may[f"t{at}"], wishes[at]), each) for at, each in enumerate(self.each)]
            self.now_s += period
            taken = zip(self.usages, self.held, strict=True)
            self.usages = [usage.after({"gpus": held}, self.now_s, HALF_LIFE_S) for usage, held in taken]
            self.history.append(list(self.held))

    def mean(self, half_lives: float) -> list[float]:
        """Of the last so many."""
        last = self.history[-round(half_lives * HALF_LIFE_S / period_s(HALF_LIFE_S)) :]
        return [sum(each) / len(last) for each in zip(*last, strict=True)]


def _workers(units: int, each: int) -> int:
    return units - units % each


def greedy(count: int) -> Wishes:
    return lambda _: [PLENTY] * count


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 12), st.lists(st.integers(1, 5), min_size=2, max_size=4))
def test_over_time_everybody_who_wants_more_has_its_weights_share(lent: int, weights: list[int]) -> None:
    cohort = Cohort(lent, weights, [1] * len(weights), greedy(len(weights)))
    cohort.run(13)
    for had, weight in zip(cohort.mean(8), weights, strict=True):
        assert had == pytest.approx(lent * weight / sum(weights), abs=0.2)
    assert all(sum(held) == lent for held in cohort.history), "nothing is left unused"


@settings(deadline=None, max_examples=5)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=3), st.sampled_from([5, 10, 20]))
def test_one_worker_that_no_share_would_hold_goes_round(weights: list[int], each: int) -> None:
    cohort = Cohort(each, weights, [each] * len(weights), greedy(len(weights)))
    cohort.run(13)
    for had, weight in zip(cohort.mean(8), weights, strict=True):
        assert had / each == pytest.approx(weight / sum(weights), abs=0.2)


def test_who_was_away_is_served_first_and_then_all_is_as_the_weights_say() -> None:
    cohort = Cohort(20, (1, 1), (1, 1), lambda at: (PLENTY, PLENTY if at >= 10 else 0))
    cohort.run(10)
    assert cohort.held == [20, 0]
    cohort.run(0.25)
    assert cohort.held == [4, 16], "half the one's weight against double the other's"
    cohort.run(6)
    assert cohort.mean(2) == pytest.approx([10, 10], abs=0.5)


@pytest.mark.parametrize("away", [8, 40])
def test_credit_of_being_away_does_not_grow_without_bound(away: int) -> None:
    cohort = Cohort(20, (1, 1), (1, 1), lambda at: (PLENTY, PLENTY if at >= away else 0))
    cohort.run(away + 3)
    since = cohort.history[-3 * 24 :]
    more = sum(held[1] - 10 for held in since) * period_s(HALF_LIFE_S) / HALF_LIFE_S
    assert 2 < more < 10, "less than half a half-life of all that there is"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1000), st.integers(1, 40)), min_size=1, max_size=6))
def test_history_never_more_than_halves_or_doubles_a_weight(rows: list[tuple[int, float, int]]) -> None:
    names = [str(at) for at in range(len(rows))]
    found = standings(
        {name: used for name, (_, used, _) in zip(names, rows, strict=True)},
        {name: weight for name, (weight, _, _) in zip(names, rows, strict=True)},
        {name: worker for name, (_, _, worker) in zip(names, rows, strict=True)},
    )
    for name, (_, used, worker) in zip(names, rows, strict=True):
        one = found[name]
        assert 1 / MOST <= one.factor <= MOST
        assert (one.factor <= 1) if used >= one.due else (one.factor >= 1), "debt lowers, credit raises"
        assert one.factor == 1 or abs(used - one.due) > worker
    assert sum(one.due for one in found.values()) == pytest.approx(sum(used for _, used, _ in rows))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 12), st.floats(0, 30), st.floats(0, 30))
def test_no_history_takes_what_fits_into_the_own_quota(nominal: int, mine: float, theirs: float) -> None:
    owner = Member("owner", nominal, 30, 0, used=mine)
    other = Member("other", 12, 30, 0, used=theirs)
    assert fair([owner, other]) == {"owner": nominal, "other": 12}


def test_a_lender_that_wants_its_own_back_takes_more_of_it_from_who_borrowed_most_lately() -> None:
    lender = Member("lender", nominal=12, wish=0, held=0)
    heavy, light = Member("heavy", 0, 30, 6, used=9.0), Member("light", 0, 30, 6, used=3.0)
    assert fair([lender, heavy, light]) == {"lender": 0, "heavy": 3, "light": 9}
    back = dataclasses.replace(lender, wish=6)
    assert fair([back, heavy, light]) == {"lender": 6, "heavy": 1, "light": 5}


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 100), st.integers(0, 100), st.floats(0, 1e6), st.floats(0, 1), st.floats(60, 1e6))
def test_the_average_is_the_same_in_however_many_steps_it_is_asked(
    before: float, borrowed: int, length_s: float, part: float, half_life: float
) -> None:
    start = Usage(1000.0, {"gpus": before})
    once = start.after({"gpus": borrowed}, 1000.0 + length_s, half_life)
    between = start.after({"gpus": borrowed}, 1000.0 + part * length_s, half_life)
    twice = between.after({"gpus": borrowed}, 1000.0 + length_s, half_life)
    assert twice.average.get("gpus", 0.0) == pytest.approx(once.average.get("gpus", 0.0), abs=2e-3)
    assert once.average.get("gpus", 0.0) <= max(before, borrowed) + 1e-9


def test_after_a_half_life_half_is_forgotten_and_a_clock_that_goes_back_forgets_nothing() -> None:
    start = Usage(1000.0, {"gpus": 8.0})
    assert start.after({}, 1000.0 + HOUR_S, HOUR_S).average == {"gpus": 4.0}
    assert start.after({}, 1000.0 + 100 * HOUR_S, HOUR_S).average == {}, "what is nothing is not kept"
    back = start.after({"gpus": 2}, 500.0, HOUR_S)
    assert back.average == start.average
    assert back.after({}, 500.0 + HOUR_S, HOUR_S).average == {"gpus": 4.0}, "it goes on by the new clock"


def test_averages_are_published_at_the_same_times_by_all() -> None:
    assert period_s(HALF_LIFE_S) == HOUR_S
    assert (period_s(60.0), period_s(16 * 60.0)) == (5.0, 60.0)
    assert not is_due(HOUR_S + 1, 2 * HOUR_S - 1, HALF_LIFE_S)
    assert is_due(2 * HOUR_S - 1, 2 * HOUR_S, HALF_LIFE_S)
    assert is_due(800 * HOUR_S, 2 * HOUR_S, HALF_LIFE_S), "published by a clock that was ahead"
    assert until_due(2 * HOUR_S - 10, HALF_LIFE_S) == 10.0


def tenant(name: str, cohort: str | None = "lab", weight: int = 1, **fields: object) -> Tenant:
    borrowed: Mapping[str, float] = fields.pop("borrowed", {})  # type: ignore[assignment]
    borrowing = {"borrowing": {"cohort": cohort, **fields}} if cohort else {}
    spec = TenantSpec.model_validate({"namespaces": ["demo"], "quota": {"gpus": 4}, "weight": weight, **borrowing})
    return Tenant(name, f"uid-{name}", "1", 1, spec, borrowed)


def test_the_longest_half_life_of_the_cohort_holds_for_all_of_it() -> None:
    everyone = [
        tenant("a"),
        tenant("b", halfLife="2h"),
        tenant("c", halfLife="1d"),
        tenant("d", "other"),
        tenant("e", None),
    ]
    assert [half_life_s(one, everyone) for one in everyone] == [86400.0, 86400.0, 86400.0, None, None]


def test_what_is_published_says_how_much_beside_how_much_is_due() -> None:
    everyone = [tenant("a", weight=1), tenant("b", weight=1, borrowed={"gpus": 1.0}), tenant("c", weight=9)]
    told = published(
        everyone[0], Usage(1000.0, {"gpus": 3.0004, "migSlices": 2.0}), ["replicas", "gpus"], 5400.0, everyone
    )
    assert told == {
        "cohort": "lab",
        "halfLife": "90m",
        "sampledAt": "1970-01-01T00:16:40Z",
        "average": {"gpus": "3.000", "replicas": "0.000"},
        "standing": "gpus 75%/50%",
    }


@pytest.mark.parametrize(
    ("written", "said"),
    [
        *(("1m", "1m"), ("61m", "61m"), ("120m", "2h"), ("9999m", "9999m"), ("9999h", "9999h")),
        *(("28d", "672h"), ("416d", "9984h"), ("417d", "417d"), ("9999d", "9999d")),
    ],
)
def test_every_half_life_that_may_be_written_is_published_as_its_schema_has_it(written: str, said: str) -> None:
    one = tenant("a", halfLife=written)
    told = FairShare.model_validate(published(one, Usage(1000.0), ["gpus"], seconds(written), [one]))
    assert told.half_life == said
    assert seconds(said) == seconds(written)


def test_the_turn_in_a_pool_is_what_was_borrowed_for_the_weight_in_the_first_line_that_counts() -> None:
    acme = tenant("a", weight=2, borrowed={"migSlices": 3.0, "replicas": 8.0})
    assert turn_of(acme, ("migGigabytes", "migSlices", "replicas")) == 1.5
    assert turn_of(acme, ("gpus", "replicas")) == 4.0
    assert turn_of(acme, ("gpus",)) == turn_of(None, ("gpus",)) == 0.0


def test_what_was_borrowed_of_another_cohort_does_not_count() -> None:
    obj = {
        "metadata": {"name": "a"},
        "spec": {"namespaces": ["demo"], "quota": {"gpus": 4}, "borrowing": {"cohort": "lab"}},
        "status": {"fairShare": {"cohort": "lab", "average": {"gpus": "2.500"}}},
    }
    assert Tenant.of(obj).borrowed == {"gpus": 2.5}
    obj["status"]["fairShare"]["cohort"] = "other"  # type: ignore[index]
    assert Tenant.of(obj).borrowed == {}
