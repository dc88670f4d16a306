"""A quick run of the engine benchmark on a CPU: real process, real socket, resumable, and a page at the end."""

from pathlib import Path

from benchmarks.engine.__main__ import main
from benchmarks.engine.results import Results


def test_a_quick_run_measures_what_was_asked_for_and_a_second_one_finds_nothing_left(tmp_path: Path) -> None:
    out = tmp_path / "results"
    command = ["run", "--quick", "--out", str(out), "--repeats", "1", "--only", "machine,ceilings,w2,w3_batch1,w5"]
    assert main(command) == 0
    found = Results(out)
    assert found.load("w2")["median"]["output_tokens_per_s"] > 0
    assert found.load("w3_batch1")["median"]["steps"] == 6
    assert not found.has("w1")
    written_at = (out / "w2.json").stat().st_mtime_ns
    assert main(command) == 0
    assert (out / "w2.json").stat().st_mtime_ns == written_at
    assert main(["report", str(out), "--to", str(tmp_path)]) == 0
    assert "W5: 8B shape" in (tmp_path / "engine.md").read_text(encoding="utf-8")
