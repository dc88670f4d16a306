"""Finds the checkpoint under the path given on the command line, and proves that it is the one asked for.

Never fetches anything: the node agent, or a person, has put the file there.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from worker_image.errors import CheckpointError

ALGORITHM: Final = "sha256"


def find_gguf(path: Path) -> Path:
    """The file itself, or the only *.gguf of a directory.

    Raises CheckpointError where there is none, or more than one to choose from.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory.")
    if path.is_file():
        return path
    found = sorted(p for p in path.rglob("*.gguf") if p.is_file())
    if len(found) == 1:
        return found[0]
    what = "no *.gguf file" if not found else f"{len(found)} *.gguf files ({', '.join(p.name for p in found[:4])})"
    raise CheckpointError(f"{path}: the directory holds {what}; it must hold exactly one, or name the file itself.")


def parse_digest(digest: str) -> str:
    """The hexadecimal part of `sha256:<64 hex>`. Raises CheckpointError."""
    algorithm, _, value = digest.partition(":")
    if algorithm != ALGORITHM or len(value) != 64 or set(value.lower()) - set("0123456789abcdef"):
        raise CheckpointError(f"digest '{digest}' is not understood; write 'sha256:' and 64 hexadecimal digits.")
    return value.lower()


def verify_digest(path: Path, digest: str) -> None:
    """Raises CheckpointError where the file's digest is another."""
    wanted = parse_digest(digest)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, ALGORITHM).hexdigest()
    if found != wanted:
        raise CheckpointError(f"{path}: has digest sha256:{found}, sha256:{wanted} was asked for. Fetch it again.")
