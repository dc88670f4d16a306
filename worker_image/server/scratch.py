"""The folder that a worker may write to: how much lies in it, and when that is more than it may hold.

A kubelet ends a pod for that without a drain, up to a minute later. A worker that looks itself has time to give its
streams away. Only a folder that is the worker's alone may be watched: what a start finds beyond the limit is removed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
_BLOCK_BYTES: Final = 512
"""Of `st_blocks`, whatever the file system's own are."""


def used_bytes(folder: Path) -> int:
    """What the folder's files take on disk, as `du` counts; files that go meanwhile count nothing."""
    total, folders = 0, [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        with suppress(OSError):
                            total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
        except OSError:
            continue
    return total


async def overflow(folder: Path, limit_bytes: int) -> str:
    """Waits until more lies in the folder than may, and says so in a sentence."""
    while True:
        used = await asyncio.to_thread(used_bytes, folder)
        if used > limit_bytes:
            return (
                f"the scratch folder {folder} holds {used >> 20} MiB; it may hold {limit_bytes >> 20} MiB. "
                "The worker gives its requests away, and empties the folder as it starts again."
            )
        await asyncio.sleep(LOOK_S)


def empty_overfull(folder: Path, limit_bytes: int) -> None:
    """Removes what an earlier run left, where that is more than may be; below the limit a cache is worth keeping."""
    used = used_bytes(folder)
    if used <= limit_bytes:
        return
    log.warning("%s holds %d MiB of %d MiB from an earlier run; it is emptied", folder, used >> 20, limit_bytes >> 20)
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)
