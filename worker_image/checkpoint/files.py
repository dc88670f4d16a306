"""Opening files for reading without copying them: one place for the errors of the file system."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Final

from worker_image.errors import CheckpointError

MAP_NORESERVE: Final = 0x4000
"""Linux's, which Python names from 3.13 on. Without it a kernel that counts refuses a file larger than the memory."""


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """To read pieces of it. Raises CheckpointError, also for what goes wrong inside the `with`."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}.") from None


def map_file(path: Path) -> mmap.mmap:
    """The whole file. Writing to the mapping would change memory only, and nobody does. Raises CheckpointError."""
    try:
        with path.open("rb") as file:
            flags, protection = mmap.MAP_PRIVATE | MAP_NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
            return mmap.mmap(file.fileno(), 0, flags=flags, prot=protection)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file.") from None
    except ValueError:
        raise CheckpointError(f"{path}: the file is empty.") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}.") from None
