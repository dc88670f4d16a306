"""What makes two workers give the same tokens, as one short string: an answer may only go on where it is equal.

A sample of the weights and not all of them: it must be there when the worker is ready, and two checkpoints of the same
shape that agree in every sampled page do not come about by accident. Proves nothing against one who wants to cheat.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from worker_image.checkpoint.files import open_file

N_PAGES: Final = 32
PAGE_BYTES: Final = 4096
HEX_DIGITS: Final = 32
_TEMPORARY: Final = (".lock", ".tmp", ".part", ".incomplete")


def fingerprint(path: Path, facts: Iterable[object]) -> str:
    """path: the checkpoint's file or directory. facts: whatever else the answers depend on. Raises CheckpointError."""
    digest = hashlib.sha256(repr([str(fact) for fact in facts]).encode())
    for file in _files(path):
        with open_file(file) as content:
            size = os.fstat(content.fileno()).st_size
            digest.update(f"{file.name}\0{size}\0".encode())
            for offset in _offsets(size):
                content.seek(offset)
                digest.update(content.read(PAGE_BYTES))
    return digest.hexdigest()[:HEX_DIGITS]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = (file for file in path.rglob("*") if file.is_file() and file.suffix not in _TEMPORARY)
    return sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts))


def _offsets(size: int) -> list[int]:
    """Evenly spread, from the first page to the last."""
    last = max(size - PAGE_BYTES, 0)
    return sorted({last * i // (N_PAGES - 1) for i in range(N_PAGES)})
