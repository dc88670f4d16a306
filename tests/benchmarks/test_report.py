"""The writer of benchmark results: numbers survive a round trip, goals are judged, misses are said."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.report import Better, Report, Row, Words, commit, number, publish, render

WORDS = Words(title="Some question", command="make bench", about=["Why it is asked."], notes=["One thing to know."])
MET = Row("idle", "memory", "MB", 120.0, 240.0, "peer 1.0", goal=300.0)
MISSED = Row("idle", "rate", "1/s", 8.0, 4.0, "peer 1.0", goal=10.0, better=Better.HIGHER)
FREE = Row("start", "time", "s", 1.25)


def report(*rows: Row) -> Report:
    return Report(machine="2 CPUs", commit="abc", date="2030-01-01 00:00 UTC", rows=rows)


def test_a_goal_is_met_in_the_direction_that_is_good() -> None:
    assert MET.met is True
    assert MISSED.met is False
    assert FREE.met is None


def test_a_number_that_was_not_measured_meets_no_goal() -> None:
    assert Row("idle", "memory", "MB", None, goal=300.0).met is False


def test_the_page_names_every_missed_goal_before_the_tables() -> None:
    page = render(report(MET, MISSED, FREE), WORDS)
    assert page.index("- idle, rate: 8 1/s; the goal is at least 10 1/s.") < page.index("## Idle")
    assert "1 of 2 goals are missed" in page


def test_the_page_says_so_when_all_goals_are_met() -> None:
    assert "All goals (1) are met." in render(report(MET, FREE), WORDS)


def test_a_table_has_a_column_for_the_peer_only_where_there_is_one() -> None:
    page = render(report(MET, FREE), WORDS)
    assert "| metric | unit | Foretide | peer 1.0 | goal |" in page
    assert "| metric | unit | Foretide | goal |" in page


def test_numbers_read_back_are_the_numbers_written(tmp_path: Path) -> None:
    numbers, page = publish(report(MET, MISSED, FREE), WORDS, "some", tmp_path)
    assert Report.read(numbers) == report(MET, MISSED, FREE)
    assert page.read_text(encoding="utf-8") == render(Report.read(numbers), WORDS)


def test_numbers_are_short_and_never_exponents() -> None:
    assert [number(one) for one in (None, 0.0, 0.01234, 3.14159, 99.96, 1234567.8)] == [
        "–",
        "0",
        "0.0123",
        "3.14",
        "100",
        "1,234,568",
    ]


def test_a_report_of_now_names_machine_commit_and_date() -> None:
    made = Report.of_now([FREE])
    assert "CPU" in made.machine
    assert made.commit
    assert made.date.endswith("UTC")


def test_results_that_a_benchmark_has_written_do_not_make_its_code_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.report.REPOSITORY", tmp_path)
    code, results = tmp_path / "code.py", tmp_path / "docs" / "benchmarks" / "mine.json"
    results.parent.mkdir(parents=True)
    for path in (code, results):
        path.write_text("1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    clean = commit()
    results.write_text("2\n")
    assert commit() == clean
    code.write_text("2\n")
    assert commit() == f"{clean}-dirty"
