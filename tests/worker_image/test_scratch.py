"""How much lies in the folder that a worker may write to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker_image.server.scratch import used_bytes


def test_a_file_that_goes_amid_the_count_takes_no_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compilers write beside what they keep, and rename."""
    (tmp_path / "kept").write_bytes(b"x" * 8192)
    (tmp_path / "gone").write_bytes(b"x")
    before = used_bytes(tmp_path)
    scandir = os.scandir

    @contextmanager
    def racing(folder: str) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        (tmp_path / "gone").unlink()
        yield found

    monkeypatch.setattr(os, "scandir", racing)
    assert 8192 <= used_bytes(tmp_path) <= before
