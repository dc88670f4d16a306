"""The command line becomes the engine's settings."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from worker_image.checkpoint.source import LoadFormat
from worker_image.engine.messages import Device
from worker_image.engine.scheduler.settings import Batching, Packing, PolicyName, Scheduling
from worker_image.errors import SettingsError
from worker_image.settings import ModelSettings, add_model_arguments, model_settings


def parsed(*arguments: str) -> ModelSettings:
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    return model_settings(parser.parse_args(["model.gguf", *arguments]))


def test_each_device_has_its_own_defaults_and_what_is_given_counts() -> None:
    assert (parsed("--device", "cpu").max_num_seqs, parsed("--device", "cpu").step_tokens) == (32, 256)
    cuda = parsed("--device", "cuda", "--max-num-seqs", "64")
    assert (cuda.max_num_seqs, cuda.step_tokens) == (64, 8192)


def test_every_flag_reaches_the_engine() -> None:
    settings = parsed(
        "--device", "cuda", "--load-format", "dummy", "--deterministic", "--gpu-memory-utilization", "0.5",
        "--gpu-memory-bytes", "5000",
        "--kv-cache-bytes", "1000", "--max-model-len", "77", "--block-size", "32", "--threads", "3",
    )  # fmt: skip
    engine = settings.engine(Path("model.gguf"))
    assert (engine.device, engine.load_format, engine.deterministic) == (Device.CUDA, LoadFormat.DUMMY, True)
    assert (engine.gpu_memory_utilization, engine.kv_cache_bytes, engine.max_model_len) == (0.5, 1000, 77)
    assert engine.gpu_memory_bytes == 5000
    assert (engine.block_tokens, engine.n_threads) == (32, 3)


@pytest.mark.parametrize("share", ["0", "1.1"])
def test_a_share_of_memory_that_is_none_is_refused(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--gpu-memory-utilization", share)
    assert f"{share} is no share; more than 0 and at most 1 are allowed" in capsys.readouterr().err


def test_a_step_must_have_room_beside_every_answer() -> None:
    with pytest.raises(SettingsError, match="must be more than --max-num-seqs, 32"):
        parsed("--device", "cpu", "--max-num-batched-tokens", "32")


def test_every_flag_of_scheduling_reaches_the_engine() -> None:
    found = parsed(
        "--scheduling-policy", "fair", "--batching", "adaptive", "--packing", "buckets", "--min-batch", "2",
        "--max-batch", "9", "--batch-base", "5", "--min-wait-s", "0.1", "--max-wait-s", "0.5", "--ageing-s", "7",
    ).engine(Path("model.gguf"))  # fmt: skip
    assert found.scheduling == Scheduling(
        PolicyName.FAIR, Batching.ADAPTIVE, Packing.BUCKETS, 2, 9, 5, 0.1, 0.5, 7.0
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--max-batch", "2", "--min-batch", "3"), "--max-batch is 2; it must be at least --min-batch, 3."),
        (("--max-wait-s", "1", "--min-wait-s", "2"), "--max-wait-s is 1; it must be at least --min-wait-s, 2."),
    ],
)
def test_a_batch_that_could_never_begin_is_refused(flags: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        parsed(*flags)
