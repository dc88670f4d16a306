"""The scheduling benchmark measures what it says: the same work for all, peers that behave as their sources do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.report import Row
from benchmarks.scheduling.__main__ import SLICE, WHOLE, subjects
from benchmarks.scheduling.machine import Fate, run
from benchmarks.scheduling.measures import attained, fair_shares, fairness
from benchmarks.scheduling.rows import winners
from benchmarks.scheduling.workloads import Asked, Lengths, flood, lengths, mixed

SHORT = Lengths(((40, 5), (200, 20), (700, 12)), "made for a test")
SMALL = replace(SLICE, max_sequences=4, kv_tokens=1600)


@pytest.mark.parametrize("name", list(subjects(SMALL)))
def test_every_subject_serves_every_request_in_full(name: str) -> None:
    asked = mixed(SHORT, 6.0, 12.0, seed=1)
    done = run(subjects(SMALL)[name](), asked, SMALL)
    assert len(done.fates) == len(asked) > 20
    assert all(fate.tokens == fate.asked.output_tokens for fate in done.fates)
    assert all(fate.first_s is not None and fate.first_s > fate.asked.at_s for fate in done.fates)
    assert 0 < done.busy_s <= done.ended_s


def test_first_come_first_served_is_what_vllm_does_while_nothing_runs_out() -> None:
    asked = mixed(SHORT, 20.0, 10.0, seed=2)
    ours, theirs = (run(subjects(WHOLE)[name](), asked, WHOLE) for name in ("fcfs", "vLLM fcfs"))
    for mine, other in zip(ours.fates, theirs.fates, strict=True):
        assert mine.first_s == pytest.approx(other.first_s, rel=1e-3)
        assert mine.done_s == pytest.approx(other.done_s, rel=1e-3)


def test_vllms_priority_preempts_only_where_the_cache_is_full() -> None:
    asked = [Asked(0.0, 300, 150, 3, "t0") for _ in range(4)] + [Asked(0.5, 300, 5, 0, "t0")]
    plenty = replace(SMALL, max_sequences=8, kv_tokens=160_000)
    assert run(subjects(plenty)["vLLM priority"](), asked, plenty).preemptions == 0
    assert run(subjects(SMALL)["vLLM priority"](), asked, SMALL).preemptions > 0


def test_a_flood_begins_after_a_quarter_and_is_one_tenants() -> None:
    asked = flood(SHORT, 10.0, 40.0, seed=3)
    early = [each.tenant for each in asked if each.at_s < 10.0]
    late = [each.tenant for each in asked if each.at_s >= 10.0]
    assert "t0" not in early
    assert late.count("t0") > 0.6 * len(late)


def test_fair_shares_are_max_min_fair() -> None:
    assert fair_shares([1.0, 5.0, 10.0], 12.0) == [1.0, 5.0, 6.0]
    assert fair_shares([4.0, 4.0], 4.0) == [2.0, 2.0]


def fate(tenant: str, served: int, *, priority: int = 1, first_s: float = 0.5, done_s: float = 1.0) -> Fate:
    return Fate(Asked(0.0, 50, 50, priority, tenant), first_s, done_s, tokens=50, served=served)


def test_fairness_is_one_where_each_has_its_share() -> None:
    assert fairness([fate("a", 60), fate("b", 60)]) == pytest.approx(1.0)
    assert fairness([fate("a", 100), fate("b", 0)]) == pytest.approx(0.5)


def test_an_sla_is_attained_by_its_first_token_and_its_pace() -> None:
    assert attained(fate("a", 100))
    assert not attained(fate("a", 100, first_s=1.1, done_s=1.2))
    assert not attained(fate("a", 100, done_s=9.0))
    assert attained(fate("a", 100, priority=3, done_s=9.0))


def test_who_wins_by_less_than_a_hundredth_does_not_win() -> None:
    rows = [
        Row("batching, x", f"{metric}: {mode}", "ms", ours, 10.0, "continuous")
        for metric, mode, ours in (
            ("TTFT p50", "continuous", 10.0), ("TTFT p50", "static", 9.95),
            ("TPOT p99", "continuous", 10.0), ("TPOT p99", "static", 8.0),
        )
    ]  # fmt: skip
    assert winners(rows) == ["Best, x: TTFT p50 continuous; TPOT p99 static."]


def test_without_a_trace_lengths_are_made_and_named_so() -> None:
    made = lengths(None, longest=4000)
    assert "made here" in made.source
    assert all(0 < sum(pair) < 4000 for pair in made.pairs)
