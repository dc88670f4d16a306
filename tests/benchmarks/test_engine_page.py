"""The page of the engine benchmark from a folder of results: rows, goals of the card at hand, what is missing."""

from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.engine.page import report, rows
from benchmarks.engine.results import Results
from benchmarks.report import Better, Row


@pytest.fixture
def results(tmp_path: Path) -> Results:
    found = Results(tmp_path)
    found.save("machine", {"machine": "16 CPUs", "commit": "abc", "date": "2030-01-01 00:00 UTC"})
    found.save(
        "ceilings", {"card": "NVIDIA H200", "torch": "2.11", "copy_gb_per_s": 4200.0, "matmul_tflop_per_s": 790.0}
    )
    return found


def row(results: Results, metric: str, workload: str = "") -> Row:
    return next(row for row in rows(results) if row.metric == metric and row.workload.startswith(workload))


def test_throughput_has_the_peers_figure_and_a_goal_for_the_card_at_hand(results: Results) -> None:
    results.save("w1", {"median": {"output_tokens_per_s": 30_000.0}, "repeats": []})
    found = row(results, "output tokens", "W1")
    assert found.peer == 23_915
    assert found.goal == pytest.approx(28_698)
    assert found.met is True


def test_a_workload_with_a_goal_that_was_not_run_is_a_goal_missed(results: Results) -> None:
    assert row(results, "output tokens", "W2").met is False
    assert row(results, "TPOT, p99", "W4: 24").met is False


def test_deterministic_mode_is_a_ratio_to_our_own_numbers(results: Results) -> None:
    results.save("w2", {"median": {"output_tokens_per_s": 6000.0, "kv_waste": 0.01}, "repeats": []})
    results.save("w2_deterministic", {"median": {"output_tokens_per_s": 5700.0}, "repeats": []})
    kept = row(results, "share of W2's throughput kept")
    assert kept.ours == pytest.approx(0.95)
    assert kept.met is True
    assert row(results, "slots held that no token uses, mean over W2's steps").met is True


def test_kernels_rows_and_transformers_are_taken_over_as_measured(results: Results) -> None:
    kernel = Row("decode attention", "1×8k", "GB/s", 2000.0, 1914.0, "FA3", 1950.0, Better.HIGHER)
    results.save("kernels", {"rows": [asdict(kernel)]})
    results.save("transformers", {"w3_batch1": {"output_tokens_per_s": 53.0, "ttft_ms": 36.0, "tpot_ms": 18.0}})
    assert row(results, "1×8k").better is Better.HIGHER
    assert row(results, "TPOT, median", "beside transformers").peer == 18.0


def test_the_report_names_the_machine_that_was_measured(results: Results) -> None:
    assert report(results).machine == "NVIDIA H200, torch 2.11; 16 CPUs"
    assert report(results).commit == "abc"


def test_a_result_is_written_whole_and_read_back(tmp_path: Path) -> None:
    found = Results(tmp_path)
    assert not found.has("w1")
    assert found.load("w1") == {}
    found.save("w1", {"median": {}})
    assert found.has("w1")
    assert [path.name for path in tmp_path.iterdir()] == ["w1.json"]
