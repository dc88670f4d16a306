"""The command line: flags as settings, wrong ones as sentences, progress for people and for logs."""

from __future__ import annotations

import argparse
import io
import logging
from pathlib import Path

import pytest

from worker_image.__main__ import main
from worker_image.engine.messages import Device, LoadFormat, Progress
from worker_image.progress import ProgressBar, ProgressLines
from worker_image.settings import ServeSettings, add_serve_arguments, present_device, serve_settings


def settings(*flags: str) -> ServeSettings:
    parser = argparse.ArgumentParser()
    add_serve_arguments(parser)
    return serve_settings(parser.parse_args(["some/model.gguf", *flags]))


def test_without_flags_the_file_gives_the_name_and_the_machine_the_device() -> None:
    found = settings()
    assert (found.names, found.port, found.admin_port) == (("model",), 8000, 8001)
    assert (found.model.device, found.prefix_caching) == (present_device(), True)


def test_a_directory_gives_its_whole_name_also_where_that_has_a_dot_or_is_the_one_we_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Qwen2.5-7B"
    folder.mkdir()
    monkeypatch.chdir(folder)
    parser = argparse.ArgumentParser()
    add_serve_arguments(parser)
    for path in (str(folder), "."):
        assert serve_settings(parser.parse_args([path])).names == ("Qwen2.5-7B",)


def test_flags_become_settings() -> None:
    found = settings(
        "--device", "cuda", "--load-format", "dummy", "--gpu-memory-utilization", "0.5", "--deterministic",
        "--no-prefix-caching", "--served-model-name", "a", "--served-model-name", "b", "--grammar-timeout-s", "2",
        "--kv-cache-bytes", "4096", "--max-model-len", "100", "--max-num-seqs", "7", "--max-num-batched-tokens", "9",
    )  # fmt: skip
    model = found.model
    assert (model.device, model.load_format, model.gpu_memory_utilization) == (Device.CUDA, LoadFormat.DUMMY, 0.5)
    assert (model.deterministic, found.prefix_caching, found.names) == (True, False, ("a", "b"))
    assert (model.kv_cache_bytes, model.max_model_len, model.max_num_seqs, model.step_tokens) == (4096, 100, 7, 9)
    assert found.grammar_timeout_s == 2.0


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["serve", "x", "--device", "tpu"], "--device: 'tpu' is not known; it may be cpu or cuda."),
        (["serve", "x", "--port", "70000"], "--port: 70000 is no port; 0 to 65535 are allowed."),
        (["serve", "x", "--port", "web"], "--port: 'web' is no whole number."),
        (["chat", "x", "--max-num-seqs", "0"], "--max-num-seqs: 0 is not allowed; it must be 1 or more."),
        (["bench", "x", "--gpu-memory-utilization", "2"], "2 is no share; more than 0 and at most 1 are allowed."),
        (["serve", "x", "--drain-timeout-s", "-1"], "-1 is no time; 0 seconds or more are allowed."),
        (["serve", "x", "--batching", "some"], "'some' is not known; it may be continuous or adaptive or dynamic or"),
        (["serve"], "the following arguments are required: path."),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_a_wrong_flag_is_a_sentence_and_code_2(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        with pytest.raises(SystemExit) as ended:
            main(flags)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert ended.value.code == 2
    written = capsys.readouterr().err
    assert sentence in written
    assert "--help' lists the flags" in written
    assert "usage:" not in written


def test_progress_is_a_bar_on_a_terminal() -> None:
    terminal = io.StringIO()
    bar = ProgressBar(terminal)
    for done in (1, 2):
        bar(Progress("weights", done, 2))
    first, last = terminal.getvalue().split("\r")[1:]
    assert "weights" in first
    assert first.endswith("1/2")
    assert last.count("━") == 2 * first.count("━")
    assert last.endswith("2/2\n")


def test_progress_is_few_lines_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    now = iter([0.0, 0.1, 0.6, 0.7])
    lines = ProgressLines(clock=lambda: next(now))
    with caplog.at_level(logging.INFO):
        for done in (1, 2, 3, 4):
            lines(Progress("weights", done, 4))
    assert [record.getMessage() for record in caplog.records] == [
        "loading weights: 1 of 4", "loading weights: 3 of 4", "loading weights: 4 of 4",
    ]  # fmt: skip
