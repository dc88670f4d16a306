"""The benchmark of forecasting: its scorer against values worked out by hand, its readers, and a resumed run."""

from __future__ import annotations

import gzip
import io
import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.forecasting.__main__ import main
from benchmarks.forecasting.data import NabFile, UnknownData, read_m4, read_nab, read_trace
from benchmarks.forecasting.nab_scoring import LOW_MISSES, STANDARD, best, events, probation, row_values
from benchmarks.forecasting.pieces import Job, Pieces
from forecasting.series import Array

FILE = NabFile("a.csv", 300.0, 2.0, np.zeros(200), ((100, 119),))


def alarms(*rows: int) -> Array:
    scores = np.zeros(200)
    scores[list(rows)] = 1.0
    return scores


def s(position: float) -> float:
    return 2 / (1 + math.exp(5 * position)) - 1


def test_silence_scores_nothing_and_the_first_row_of_a_window_everything() -> None:
    assert best([FILE], [alarms()], STANDARD).score == 0
    assert best([FILE], [alarms(100)], STANDARD).score == pytest.approx(100)


def test_a_late_detection_is_worth_less_and_only_the_best_counts() -> None:
    worth = s(-1 / 20) / s(-1)
    late = best([FILE], [alarms(119)], STANDARD).score
    assert late == pytest.approx(100 * (1 + worth) / 2)
    assert best([FILE], [alarms(100, 105, 119)], STANDARD).score == pytest.approx(100)
    assert best([FILE], [alarms(119)], LOW_MISSES).score == pytest.approx(100 * (2 + worth) / 3)


def test_a_false_alarm_costs_its_weight_and_just_after_a_window_nearly_nothing() -> None:
    worth, inside = row_values(FILE, STANDARD)
    assert worth[50] == pytest.approx(-0.11)
    assert worth[120] == pytest.approx(0.11 * s(1 / 19))
    assert worth[199] == pytest.approx(-0.11)
    assert inside[[99, 100, 119, 120]].tolist() == [-1, 0, 0, -1]
    assert best([FILE], [alarms(50, 100)], STANDARD).score == pytest.approx(100 * (2 - 0.11) / 2)


def test_the_probation_counts_for_nothing() -> None:
    assert probation(200) == 30
    assert probation(20_000) == 750
    assert best([FILE], [alarms(5, 100)], STANDARD).score == pytest.approx(100)


def test_the_threshold_is_the_best_one_of_the_whole_corpus() -> None:
    first, second = alarms(), alarms()
    first[100], first[40] = 0.9, 0.2
    second[100], second[40] = 0.6, 0.3
    scored = best([FILE, FILE], [first, second], STANDARD)
    assert scored.threshold == 0.6
    assert scored.score == pytest.approx(100)


def test_a_run_of_alarms_is_one_event() -> None:
    seen = events([FILE], [alarms(40, 41, 42, 60, 110)], 0.5)
    assert (seen.found, seen.missed, seen.false_alarms) == (1, 0, 2)
    assert seen.f1 == pytest.approx(2 / 4)
    assert seen.false_alarms_a_day == pytest.approx(2 / (2.0 * 0.85))


def gz(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))
    return path


def test_m4_and_nab_folders_are_read(tmp_path: Path) -> None:
    gz(tmp_path / "m4" / "Hourly-train.csv.gz", "V1,V2,V3,V4\nH1,1,2,3\nH3,4,5,\n")
    gz(tmp_path / "m4" / "Hourly-test.csv.gz", "V1,V2\nH1,9\nH3,8\n")
    found = read_m4(tmp_path / "m4")
    assert [(one.name, one.history.tolist(), one.actual.tolist()) for one in found] == [
        ("H1", [1, 2, 3], [9]),
        ("H3", [4, 5], [8]),
    ]
    times = [f"2014-04-01 00:{5 * at:02d}:00" for at in range(6)]
    gz(
        tmp_path / "nab" / "data" / "x" / "a.csv.gz",
        "timestamp,value\n" + "".join(f"{t},{i}\n" for i, t in enumerate(times)),
    )
    labels = {"x/a.csv": [[times[2] + ".000000", times[4] + ".000000"]], "x/absent.csv": []}
    (tmp_path / "nab" / "labels").mkdir()
    (tmp_path / "nab" / "labels" / "combined_windows.json").write_text(json.dumps(labels))
    (one,) = read_nab(tmp_path / "nab")
    assert (one.step_s, one.windows, one.values.tolist()) == (300.0, ((2, 4),), [0, 1, 2, 3, 4, 5])


def test_each_kind_of_trace_is_read(tmp_path: Path) -> None:
    rates = gz(tmp_path / "total.csv.gz", "start_s,requests_per_s\n0,5\n600,0\n1200,7\n")
    (series,) = read_trace(rates)
    assert np.array_equal(series.values, [5, np.nan, 7], equal_nan=True)
    (series,) = read_trace(gz(tmp_path / "chunk.csv.gz", "0,5.5,1,Gamma,1,1\n600,6,1,Gamma,1,1\n"))
    assert series.values.tolist() == [5.5, 6]
    arrivals = "TIMESTAMP,ContextTokens\n" + "".join(f"2023-11-16 18:15:{at:02d}.5000000,1\n" for at in range(25))
    (series,) = read_trace(gz(tmp_path / "azure.csv.gz", arrivals))
    assert (series.step_s, series.values.tolist()) == (10.0, [1.0, 1.0])
    lines = "".join(json.dumps({"timestamp": at * 1000, "requests": [1, 2]}) + "\n" for at in range(25))
    (series,) = read_trace(gz(tmp_path / "lines.jsonl.gz", lines))
    assert series.values.tolist() == [2.0, 2.0]
    with pytest.raises(UnknownData, match="Known are"):
        read_trace(gz(tmp_path / "odd.csv.gz", "colour,shape\nred,round\n"))


def test_an_archive_of_clients_has_zeros_for_the_silent_and_gaps_where_all_were(tmp_path: Path) -> None:
    path = tmp_path / "m-traces.tar.gz"
    texts = {"a": "0,5,1\n1200,3,1\n1800,0,1\n", "b": "0,0,1\n600,0,1\n1200,1,1\n1800,2,1\n"}
    with tarfile.open(path, "w:gz") as archive:
        for name, text in texts.items():
            info = tarfile.TarInfo(f"data/m/chunk-{name}-trace.csv")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    first, second = read_trace(path)
    assert np.array_equal(first.values, [5, np.nan, 3, 0], equal_nan=True)
    assert np.array_equal(second.values, [0, np.nan, 1, 2], equal_nan=True)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, 1)
    assert pieces.all("sums", [Job("one", "d", sum, ([1, 2],))]) == [3]
    again = pieces.all("sums", [Job("one", "d", sum, (["never asked"],)), Job("two", "d", sum, ([5],))])
    assert again == [3, 5]
    assert pieces.all("sums", [Job("one", "other", sum, ([7],))]) == [7]


def test_a_quick_run_writes_rows_a_page_and_a_picture(tmp_path: Path) -> None:
    options = ["--quick", "--out", str(tmp_path), "--state", str(tmp_path / "state"), "--workers", "1"]
    assert main(options) == 0
    rows = json.loads((tmp_path / "forecasting.json").read_text())["rows"]
    assert {row["metric"] for row in rows} >= {"sMAPE", "all refreshed", "coverage of the 95 % interval"}
    assert all(row["goal"] is None for row in rows)
    picture = next(tmp_path.glob("forecasting-*.svg"))
    assert picture.name in (tmp_path / "forecasting.md").read_text()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--trace", str(tmp_path / "absent.csv"), "--out", str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err
