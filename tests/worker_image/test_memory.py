from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from tests.worker_image.tiny_gguf import tiny_llama, write_gguf
from worker_image.checkpoint.gguf_checkpoint import GgufCheckpoint
from worker_image.engine import loading, process
from worker_image.engine.memory import check_weights, free_memory_bytes
from worker_image.engine.messages import EngineSettings
from worker_image.engine.swapping import swap_slots
from worker_image.errors import SettingsError
from worker_image.models.config import ModelConfig, RopeConfig

GIB = 2**30
LLAMA = ModelConfig("llama", 32, 4096, 14336, 32, 8, 128, 128256, 131072, RopeConfig(500000.0), 1e-5)
SETTINGS = EngineSettings("", 1, 4, 64, 16, None, None)


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("limit", "used"),
    [
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ],
)
def test_a_containers_limit_counts_in_both_versions_of_cgroups(tmp_path: Path, limit: str, used: str) -> None:
    assert free_memory_bytes(_write(tmp_path, {limit: f"{GIB // 4}\n", used: f"{GIB // 16}\n"})) == GIB * 3 // 16


@pytest.mark.parametrize(
    ("folder", "limit", "used", "prefix"),
    [("", "memory.max", "memory.current", ""), ("memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")],
)
def test_pages_of_files_that_were_read_count_as_free_as_the_kernel_gives_them_back(
    tmp_path: Path, folder: str, limit: str, used: str, prefix: str
) -> None:
    """A container that has read its weights stands at its limit, whatever it needs of it."""
    pages = f"anon 1\n{prefix}active_file {GIB // 16}\n{prefix}inactive_file {GIB // 8}\n{prefix}unevictable 7\n"
    files = {limit: str(GIB // 4), used: str(GIB // 4), "memory.stat": pages}
    root = _write(tmp_path, {folder + name: text for name, text in files.items()})
    assert free_memory_bytes(root) == GIB * 3 // 16


def test_more_use_than_the_limit_leaves_nothing_rather_than_less(tmp_path: Path) -> None:
    assert free_memory_bytes(_write(tmp_path, {"memory.max": "100", "memory.current": "101"})) == 0


@pytest.mark.parametrize("limit", [{"memory.max": "max\n"}, {"memory/memory.limit_in_bytes": str(2**62)}, {}])
def test_without_a_limit_the_machine_decides(tmp_path: Path, limit: dict[str, str]) -> None:
    files = limit | ({"memory/memory.usage_in_bytes": "0"} if limit else {})
    assert free_memory_bytes(_write(tmp_path, files)) > GIB // 4


def test_weights_that_the_memory_does_not_hold_are_refused_before_any_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama())
    monkeypatch.setattr(process, "free_memory_bytes", lambda: 1000)
    with pytest.raises(SettingsError, match=r"the weights take \d+ MiB at 4 bytes an element; 0 MiB are free"):
        process.load(cast("process.Channel", None), replace(SETTINGS, model_path=str(path)))


def test_weights_count_each_element_once() -> None:
    config = replace(LLAMA, tied=True)
    elements = 128256 * 4096 + 4096 + 32 * (4096 * (2 * 4096 + 2 * 1024 + 3 * 14336) + 2 * 4096)
    check_weights(config, 2, 2 * elements)
    with pytest.raises(SettingsError):
        check_weights(config, 2, 2 * elements - 1)


def test_more_swap_than_there_is_memory_is_refused() -> None:
    settings = replace(SETTINGS, swap_bytes=10**15)
    with pytest.raises(SettingsError, match=r"--kv-swap-bytes is 10{15}; 1073741824 bytes of memory are free"):
        swap_slots(settings, 512, GIB)
    assert swap_slots(replace(SETTINGS, swap_bytes=GIB), 512, GIB) == GIB // (512 * 16)


def test_a_card_whose_memory_ends_amid_the_start_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> loading.Loaded:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nDetails")

    monkeypatch.setattr(loading, "_load_runner", out_of_memory)
    checkpoint = GgufCheckpoint(write_gguf(tmp_path / "tiny.gguf", tiny_llama()))
    with pytest.raises(SettingsError, match=r"settings: CUDA out of memory. Tried to allocate 2.00 GiB. Lower"):
        loading.load_engine(checkpoint, SETTINGS, lambda progress: None)
