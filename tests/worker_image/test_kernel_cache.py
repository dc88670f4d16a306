"""Kernels of the image are copied once to where Triton may write, and never over what is there."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from worker_image.kernel_cache import fill_kernel_cache


def an_image(folder: Path) -> Path:
    kernels = folder / "kernels"
    (kernels / "abc").mkdir(parents=True)
    (kernels / "abc" / "attention.cubin").write_bytes(b"cubin")
    return kernels


def test_an_empty_place_is_filled_and_a_filled_one_is_kept(tmp_path: Path) -> None:
    brought, cache = an_image(tmp_path), tmp_path / "tmp/kernels"
    environment = {"TRITON_CACHE_DIR": str(cache)}
    fill_kernel_cache(environment, brought)
    assert (cache / "abc/attention.cubin").read_bytes() == b"cubin"
    (cache / "abc/attention.cubin").write_bytes(b"newer")
    fill_kernel_cache(environment, brought)
    assert (cache / "abc/attention.cubin").read_bytes() == b"newer"


@pytest.mark.parametrize("cut_by", [KeyboardInterrupt("a kill"), OSError("No space left on device")])
def test_a_copy_that_was_cut_short_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_by: BaseException
) -> None:
    brought, cache = an_image(tmp_path), tmp_path / "tmp/kernels"
    environment = {"TRITON_CACHE_DIR": str(cache)}

    def half(_: Path, target: Path) -> None:
        (target / "abc").mkdir(parents=True)
        (target / "abc/attention.cubin").write_bytes(b"cu")
        raise cut_by

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(shutil, "copytree", half)
        fill_kernel_cache(environment, brought)
    fill_kernel_cache(environment, brought)
    assert (cache / "abc/attention.cubin").read_bytes() == b"cubin"
    assert [entry.name for entry in cache.parent.iterdir()] == ["kernels"]


def test_without_kernels_or_without_a_place_nothing_happens(tmp_path: Path) -> None:
    fill_kernel_cache({"TRITON_CACHE_DIR": str(tmp_path / "cache")}, tmp_path / "none")
    fill_kernel_cache({}, an_image(tmp_path))
    assert not (tmp_path / "cache").exists()


def test_a_place_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    fill_kernel_cache({"TRITON_CACHE_DIR": str(tmp_path / "file/cache")}, an_image(tmp_path))
    assert "cannot be copied" in caplog.text
