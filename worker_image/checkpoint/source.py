"""Finds the checkpoint under the path given on the command line, and proves that it is the one asked for.

Never fetches anything: the node agent, or a person, has put the file there.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Final

from worker_image.checkpoint.files import open_file
from worker_image.errors import CheckpointError


class LoadFormat(StrEnum):
    """Where weights come from."""

    AUTO = "auto"
    """The checkpoint's files: a GGUF file, or a Hugging Face directory."""
    DUMMY = "dummy"
    """Random numbers in the shapes of its config.json, for measuring."""


ALGORITHM: Final = "sha256"
CONFIG_FILE: Final = "config.json"
PIECE_BYTES: Final = 1 << 20


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


def find_checkpoint(path: Path, load_format: LoadFormat) -> Path:
    """What the engine is told to open: the directory of a Hugging Face or dummy model, else the GGUF file.

    Raises CheckpointError where there is nothing to open.
    """
    return path if load_format is LoadFormat.DUMMY or is_hf_directory(path) else find_gguf(path)


def is_hf_directory(path: Path) -> bool:
    """A directory with config.json, and no GGUF file instead of safetensors."""
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path}: name the directory that holds it and its {CONFIG_FILE}.")
    return (path / CONFIG_FILE).is_file() and (any(path.glob("*.safetensors*")) or not any(path.rglob("*.gguf")))


def parse_digest(digest: str) -> str:
    """The hexadecimal part of `sha256:<64 hex>`. Raises CheckpointError."""
    algorithm, _, value = digest.partition(":")
    if algorithm != ALGORITHM or len(value) != 64 or set(value.lower()) - set("0123456789abcdef"):
        raise CheckpointError(f"digest '{digest}' is not understood; write 'sha256:' and 64 hexadecimal digits.")
    return value.lower()


def verify_checkpoint(given: Path, opened: Path, digest: str, given_up: Event) -> None:
    """`given` on the command line, of which `opened` is served. The digest may be of a directory or of its GGUF file.

    given_up: once set, nobody waits for the result any more. Raises CheckpointError where it is of neither.
    """
    of_the_file = given.is_dir() and opened.is_file() and _file_digest(opened, given_up) == parse_digest(digest)
    if not of_the_file:
        verify_digest(given, digest, given_up)


def verify_digest(path: Path, digest: str, given_up: Event) -> None:
    """Raises CheckpointError where the file's or directory's digest is another."""
    wanted = parse_digest(digest)
    found = _folder_digest(path, given_up) if path.is_dir() else _file_digest(path, given_up)
    if found != wanted:
        raise CheckpointError(f"{path}: has digest sha256:{found}, sha256:{wanted} was asked for. Fetch it again.")


def _file_digest(path: Path, given_up: Event) -> str:
    digest, piece = hashlib.new(ALGORITHM), memoryview(bytearray(PIECE_BYTES))
    with open_file(path) as file:
        while n_bytes := file.readinto(piece):
            if given_up.is_set():
                raise CheckpointError(f"{path}: reading it was given up.")
            digest.update(piece[:n_bytes])
    return digest.hexdigest()


def _folder_digest(path: Path, given_up: Event) -> str:
    """Of the only file, or of the list `<hex>  <path>` of several, sorted by path; hidden files do not count.

    The same as the operator's model cache computes for what it has fetched.
    """
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    digests = {name: _file_digest(path / name, given_up) for name in names if not name.startswith(".")}
    if len(digests) == 1:
        return next(iter(digests.values()))
    listing = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256(listing.encode()).hexdigest()
