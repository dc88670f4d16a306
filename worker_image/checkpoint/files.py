"""Opening files for reading without copying them: one place for the errors of the file system."""

from __future__ import annotations

import mmap
from pathlib import Path

from worker_image.errors import CheckpointError


def map_file(path: Path) -> mmap.mmap:
    """The whole file. Writing to the mapping would change memory only, and nobody does. Raises CheckpointError."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file.") from None
    except ValueError:
        raise CheckpointError(f"{path}: the file is empty.") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}.") from None
