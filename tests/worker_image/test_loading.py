"""What the start meets on the disk beside a checkpoint that is whole: size, unreadable files, a start given up."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest

from tests.worker_image.tiny_gguf import tiny_llama, write_gguf
from worker_image.checkpoint.files import map_file
from worker_image.checkpoint.fingerprint import fingerprint
from worker_image.checkpoint.source import verify_digest
from worker_image.engine.client import EngineClient
from worker_image.errors import CheckpointError, EngineEnded
from worker_image.loading import finish_loading
from worker_image.settings import add_model_arguments, model_settings

MEMORY_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def huge(tmp_path: Path) -> Iterator[Path]:
    """A model and a hole behind it: more bytes than the machine has memory, few of them on the disk."""
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama())
    os.truncate(path, 4 * MEMORY_BYTES)
    yield path
    path.unlink()


def test_a_file_larger_than_the_memory_is_mapped_and_not_counted_as_memory(huge: Path) -> None:
    with map_file(huge) as mapped:
        assert mapped[:4] == b"GGUF"
        _, _, area = Path("/proc/self/smaps").read_text().partition(str(huge))
    flags = next(line for line in area.splitlines() if line.startswith("VmFlags:"))
    assert "ac" not in flags.split(), "accountable"


async def test_a_start_that_is_given_up_reads_no_further_for_its_digest(huge: Path) -> None:
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    settings = model_settings(parser.parse_args([str(huge), "--digest", "sha256:" + "ab" * 32]))

    async def wait_ready() -> None:
        raise EngineEnded("the engine process has ended.")

    with pytest.raises(EngineEnded):
        await finish_loading(settings, huge, cast("EngineClient", SimpleNamespace(wait_ready=wait_ready)))
    async with asyncio.timeout(30.0):
        await asyncio.get_running_loop().shutdown_default_executor()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Its first page is mapped nowhere."""
    (tmp_path / "broken").symlink_to("/proc/self/mem")
    with pytest.raises(CheckpointError, match="broken: cannot be read: Input/output error"):
        fingerprint(tmp_path, ())
    with pytest.raises(CheckpointError, match="broken: cannot be read: Input/output error"):
        verify_digest(tmp_path, "sha256:" + "ab" * 32, Event())
