"""The page: what was not done is missed, what was wrong is told, and a control is found only by the fault."""

from __future__ import annotations

from pathlib import Path

from e2e.faults import report
from e2e.faults.campaigns import ALONE
from e2e.faults.outcomes import Outcome, add, read

AT = "2026-11-26T18:00:00+00:00"


def goals(outcomes: list[Outcome]) -> dict[tuple[str, str], bool]:
    return {(row.workload, row.metric): bool(row.met) for row in report.rows(outcomes) if row.met is not None}


def control(outcomes: list[Outcome]) -> bool:
    return goals(outcomes)["crash", "control: an operator that remembers in the status is found"]


def planted(case: str, *wrong: str) -> Outcome:
    return Outcome("crash", case, "remembers in the status", wrong=wrong, at=AT)


def test_what_was_not_tried_is_missed() -> None:
    found = goals([])
    assert found
    assert not any(found.values())


def test_a_control_is_found_when_its_mistake_shows_under_the_fault_alone() -> None:
    assert control([planted(ALONE), planted("before, x", "a child is missing")])
    assert not control([planted(ALONE), planted("before, x")])
    assert not control([planted(ALONE, "a child is missing"), planted("before, x", "a child is missing")])


def test_a_case_in_which_something_was_wrong_is_told_with_what_it_was() -> None:
    outcomes = [
        Outcome("crash", "before, y", wrong=("Deployment chat is missing",), at=AT),
        Outcome("crash", "z", met=False, at=AT, numbers={"lives": 2.0}),
    ]
    counted = {row.metric: row.ours for row in report.rows(outcomes) if row.workload == "crash"}
    assert counted["cases tried"] == 2
    assert counted["cases whose fault came about"] == 1
    assert counted["cases in which something was wrong"] == 1
    assert counted["lives"] == 2
    assert "Crash, before, y: Deployment chat is missing." in report.words(outcomes).notes


def test_lines_are_read_again_and_the_last_one_of_a_case_counts(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    first, second = Outcome("crash", "x", wrong=("late",), at=AT), Outcome("crash", "x", at=AT)
    add(file, [first, planted("x")])
    add(file, [second])
    assert list(read(file).values()) == [second, planted("x")]
    assert read(tmp_path / "none.jsonl") == {}
