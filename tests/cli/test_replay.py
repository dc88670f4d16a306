"""`foretide replay`: recorded decisions are decided again, and a difference is not kept quiet."""

from __future__ import annotations

import errno
import gzip
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app, main
from forecasting.policy import (
    Bounds,
    Capacity,
    Load,
    LoadForecast,
    Memory,
    PolicySettings,
    ScalingDecision,
    ScalingInput,
    plan,
    to_json,
)

NOW_S = 1_772_452_800.0  # 2026-03-02 12:00 UTC


def decided(peak: float, current: int = 4) -> ScalingDecision:
    forecast = LoadForecast(NOW_S, 60.0, (0.5, 0.95), ((0.8 * peak, peak),) * 12)
    load = Load(2.0, 1000.0, 0.0, 0.0, 0.0, 0.0, 10.0)
    return plan(
        ScalingInput(
            NOW_S,
            Bounds(1, 20),
            current,
            current,
            load,
            forecast,
            Capacity(900.0, 40.0),
            240.0,
            PolicySettings(),
            Memory(since_s=0.0),
        )
    )


def run(path: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["replay", str(path), *options], catch_exceptions=False)


def recorded(tmp_path: Path, *decisions: ScalingDecision) -> Path:
    path = tmp_path / "decisions.jsonl"
    path.write_text("".join(to_json(each) + "\n" for each in decisions))
    return path


def test_every_decision_is_shown_with_its_arithmetic(tmp_path: Path) -> None:
    shown = run(recorded(tmp_path, decided(5400.0), decided(3600.0)))
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [
        "2026-03-02 12:00:00    4 → 6   ↑ Forecast: 6 replicas: p95 load 5.4k tok/s at +0 s ÷ 900 tok/s each",
        "2026-03-02 12:00:00    4 → 4     Forecast: 4 replicas: p95 load 3.6k tok/s at +0 s ÷ 900 tok/s each",
    ]


def test_only_changes_are_shown_when_asked(tmp_path: Path) -> None:
    shown = run(recorded(tmp_path, decided(5400.0), decided(3600.0)), "--changes")
    assert len(shown.stdout.splitlines()) == 1


def test_a_decision_that_comes_out_otherwise_is_shown_and_ends_with_1(tmp_path: Path) -> None:
    shown = run(recorded(tmp_path, replace(decided(5400.0), replicas=9)))
    assert shown.exit_code == 1
    assert "now  → 6" in shown.stdout
    assert "1 decisions differ" in shown.stderr


def test_json_lines_hold_both_decisions(tmp_path: Path) -> None:
    shown = run(recorded(tmp_path, decided(5400.0)), "--json")
    said = json.loads(shown.stdout)
    assert said["same"] is True
    assert said["recorded"]["inputs"]["capacity"]["work_per_s"] == 900.0
    assert said["now"]["replicas"] == 6


@pytest.mark.parametrize("content", [b"\xff\n", b"\n"])
def test_an_input_without_a_decision_is_said_with_status_2(
    content: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))
    assert ends_with(monkeypatch, io.StringIO(), "replay", "-") == 2
    assert "Name a file of recorded decisions, or - for standard input." in capsys.readouterr().err


def test_a_closed_input_holds_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert ends_with(monkeypatch, io.StringIO(), "replay", "-") == 2


def with_number(field: str, value: str) -> str:
    """A line in which that field of the inputs has another value."""
    line, found = re.subn(rf'"{field}":[^,}}]*', f'"{field}":{value}', to_json(decided(5400.0)), count=1)
    assert found
    return line + "\n"


def test_standard_input_is_read(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["replay", "-"], input=to_json(decided(5400.0)) + "\n\n")
    assert shown.exit_code == 0
    assert "Forecast: 6 replicas" in shown.stdout


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{}\n", "line 1: ScalingDecision lacks"),
        ("no\n", "line 1: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
        ("9" * 5_000, "line 1: not JSON"),
        (with_number("requests_per_s", f"1{'0' * 400}"), "a value of type float is needed"),
        (with_number("now_s", '"nan"'), "line 1: its numbers cannot be decided on"),
        (with_number("step_s", "1e-320"), "line 1: its numbers cannot be decided on"),
        ("", "no decision in it"),
        (None, "Name a file"),
    ],
)
def test_what_is_no_record_is_refused_with_file_and_line(
    content: str | None,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "record.jsonl"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr("sys.argv", ["foretide", "replay", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def ends_with(monkeypatch: pytest.MonkeyPatch, stdout: io.TextIOBase, *arguments: str) -> object:
    monkeypatch.setattr("sys.argv", ["foretide", *arguments])
    monkeypatch.setattr("sys.stdout", stdout)
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_reader_that_has_seen_enough_is_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Head(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    path = recorded(tmp_path, decided(5400.0))
    assert ends_with(monkeypatch, Head(), "replay", str(path)) == 0


def test_a_terminal_that_has_not_all_letters_shows_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    path = recorded(tmp_path, decided(5400.0))
    assert ends_with(monkeypatch, io.TextIOWrapper(shown, "ascii", write_through=True), "replay", str(path)) == 0
    assert b"4 ? " in shown.getvalue()


@pytest.mark.parametrize("content", [gzip.compress(b"{}" * 9)[:15], b"\x1f\x8b\x08" + bytes(6) + b"\x03garbage"])
def test_a_damaged_archive_is_refused_with_its_name(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "record.jsonl.gz"
    path.write_bytes(content)
    monkeypatch.setattr("sys.argv", ["foretide", "replay", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"{path}: " in capsys.readouterr().err
