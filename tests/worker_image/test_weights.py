"""Ways of weights to a device: the same values by each of them, fused where layers fuse."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from tests.worker_image.hf_models import CONFIGS, random_model, save
from worker_image.checkpoint.base import Prefetcher, StoredTensor
from worker_image.checkpoint.dummy import DummyCheckpoint
from worker_image.checkpoint.hf_checkpoint import HfCheckpoint
from worker_image.checkpoint.open import open_checkpoint
from worker_image.checkpoint.source import LoadFormat
from worker_image.engine import loading, process
from worker_image.engine.messages import EngineSettings
from worker_image.errors import CheckpointError, SettingsError
from worker_image.models.assembly import load_model
from worker_image.models.config import ModelConfig
from worker_image.models.reference_ops import ReferenceOps
from worker_image.models.staged_weights import StagedWeights
from worker_image.models.tensors import expected_tensors, load_groups
from worker_image.models.weights import DummyWeights, HostWeights, Weights

CPU = torch.device("cpu")


@pytest.fixture(params=["qwen2", "qwen3 with tied output"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(random_model(CONFIGS[request.param]).to(torch.bfloat16), tmp_path / "model")


def all_of(weights: Weights, config: ModelConfig) -> dict[tuple[str, ...], torch.Tensor]:
    return {names: weights.take(*names) for names in load_groups(config)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_that_fill_fused_tensors_give_what_reading_one_by_one_gives(path: Path, dtype: torch.dtype) -> None:
    checkpoint = open_checkpoint(path)
    expected = all_of(HostWeights(checkpoint, dtype, CPU), checkpoint.config)
    found = all_of(StagedWeights(checkpoint, dtype, CPU, 3), checkpoint.config)
    assert found.keys() == expected.keys()
    for names, tensor in expected.items():
        assert tensor.dtype is found[names].dtype is dtype
        assert torch.equal(tensor, found[names]), names


def test_the_groups_name_every_tensor_once(path: Path) -> None:
    config = open_checkpoint(path).config
    named = [name for group in load_groups(config) for name in group]
    assert sorted(named) == sorted(expected_tensors(config))


def test_a_prefetched_checkpoint_gives_the_same_tensors(path: Path) -> None:
    plain, fetched = open_checkpoint(path), open_checkpoint(path)
    fetched.prefetch(2)
    for name in expected_tensors(plain.config):
        assert (plain.read(name).values == fetched.read(name).values).all()
    fetched.close()


def test_a_prefetcher_holds_no_more_than_it_may_and_reads_every_tensor_once() -> None:
    held, most_held, reads = [0], [0], list[str]()
    lock = threading.Lock()

    def read(name: str) -> StoredTensor:
        with lock:
            reads.append(name)
            held[0] += 1
            most_held[0] = max(most_held[0], held[0])
        return StoredTensor(np.array([int(name)], np.float32))

    names = [str(i) for i in range(40)]
    prefetcher = Prefetcher(read, dict.fromkeys(names, 10), 3, most_bytes=45)
    # Not in their order, as threads take them.
    for name in sorted(names, key=lambda name: int(name) ^ 1):
        assert prefetcher.take(name).values[0] == int(name)
        with lock:
            held[0] -= 1
    prefetcher.close()
    assert sorted(reads) == sorted(names)
    assert most_held[0] <= 5


def test_a_tensor_that_cannot_be_read_fails_the_load_with_its_own_error(path: Path) -> None:
    class Broken(DummyCheckpoint):
        pass

    checkpoint = Broken(path)
    weights = StagedWeights(checkpoint, torch.float32, CPU, 2)
    with pytest.raises(CheckpointError, match="no file to read"):
        all_of(weights, checkpoint.config)
    weights.close()


def test_a_load_that_fails_reads_nothing_more_in_the_background(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[HfCheckpoint] = []
    close = HfCheckpoint.close

    def refuse(*_: object) -> None:
        raise SettingsError("no.")

    monkeypatch.setattr(HfCheckpoint, "close", lambda self: (closed.append(self), close(self)))
    monkeypatch.setattr(loading, "load_engine", refuse)
    settings = EngineSettings(str(path), 1, 4, 64, 16, None, None)
    try:
        with pytest.raises(SettingsError):
            process.load(cast("process.Channel", SimpleNamespace(send=None)), settings)
    finally:
        gc.enable()
    assert len(closed) == 1


def test_dummy_weights_need_only_the_config_and_depend_on_the_seed_alone(path: Path) -> None:
    for file in path.glob("*.safetensors"):
        file.unlink()
    checkpoint = open_checkpoint(path, LoadFormat.DUMMY)
    one, same, other = (
        all_of(DummyWeights(checkpoint.config, torch.float32, CPU, seed), checkpoint.config) for seed in (1, 1, 2)
    )
    for names, tensor in one.items():
        assert torch.equal(tensor, same[names])
        assert torch.equal(tensor, other[names]) == names[0].endswith("norm.weight")
    seen: list[tuple[int, int]] = []
    load_model(checkpoint, ReferenceOps(), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
