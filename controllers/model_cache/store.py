"""The folder of copies on this node's disk. Everything that a crash can leave behind is one of four things here.

    <root>/<namespace>/<model>/            a verified copy; appears and disappears by one rename
    <root>/<namespace>/<model>/.foretide   what it is (JSON); its mtime is when a pod last had it
    <root>/.partial/<namespace>/<model>/   a download, continued after a restart
    <root>/.evicted/<namespace>/<model>    this copy was here and had to make room; holds its size
    <root>/.trash/…                        being deleted; finished at the next start

The kubelet mounts `<root>/<namespace>/<model>` into workers and retries until it is there. Namespaces and models never
start with a dot. Methods block; large deletions belong into a thread.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from controllers.model_cache.download import VERSIONS
from controllers.plans.model_cache import ModelRef
from crds.model import ModelFormat

RECORD: Final = ".foretide"
KEEP_FREE_PERCENT: Final = 16
"""Just above the 15 % below which a kubelet evicts pods by default, so unused copies go before pods do; and below the
20 % to which it clears images, so a node that is full of them has room for copies."""
LEAST_FREE_BYTES: Final = 64 << 20
"""Logs and pods of the node need some room, too."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a copy is: enough to know it again without reading the weights."""

    source: str
    digest: str
    format: ModelFormat
    size_bytes: int
    files: tuple[str, ...]


class Store:
    """Paths and moves under one root."""

    def __init__(self, root: Path, keep_free_percent: int = KEEP_FREE_PERCENT) -> None:
        self.root, self._keep_free_percent = root, keep_free_percent

    def open(self) -> None:
        """Make the folders and finish deletions that a crash interrupted."""
        for folder in (self.root, self._partials, self._evictions, self._trash):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        for left in self._trash.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        # Only here, where nothing runs beside: a folder must not go while a download is made in it.
        for folder in (self.root, self._partials, self._evictions):
            for namespace in folder.iterdir():
                if not namespace.name.startswith("."):
                    _drop_if_empty(namespace)

    # --- copies ----------------------------------------------------------------------------------------------
    def copy_path(self, model: ModelRef) -> Path:
        """Where the kubelet finds the copy."""
        return self.root / model.namespace / model.name

    def copies(self) -> dict[ModelRef, Record]:
        """Every published copy; folders without a readable record are not copies and are moved to the trash."""
        found = {}
        for model in _pairs(self.root):
            record = self._record(model)
            if record is None:
                self._discard(self.copy_path(model))
            else:
                found[model] = record
        return found

    def publish(self, model: ModelRef, record: Record) -> None:
        """Turn the finished download into the copy, readable for every worker's user."""
        partial, final = self.partial_path(model), self.copy_path(model)
        for path in partial.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o444)
        partial.chmod(0o755)
        (partial / VERSIONS).unlink(missing_ok=True)
        note = partial / RECORD
        note.write_text(json.dumps(asdict(record)), encoding="utf-8")
        note.chmod(0o644)
        _sync(partial)
        final.parent.mkdir(mode=0o755, exist_ok=True)
        final.parent.chmod(0o755)
        self._discard(final)
        partial.rename(final)
        _sync(final.parent)
        self.forget_eviction(model)

    def remove(self, model: ModelRef) -> None:
        """Delete the copy. A pod that has it open keeps its bytes until it ends."""
        self._discard(self.copy_path(model))

    def holds(self, model: ModelRef) -> bool:
        """Whether the copy is still there: people delete what they take for damaged."""
        return (self.copy_path(model) / RECORD).exists()

    def last_used_s(self, model: ModelRef) -> float:
        """Unix time."""
        try:
            return (self.copy_path(model) / RECORD).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def touch(self, model: ModelRef, now_s: float) -> None:
        """A pod has it."""
        with suppress(FileNotFoundError):  # Deleted by hand just now.
            os.utime(self.copy_path(model) / RECORD, (now_s, now_s))

    # --- downloads -------------------------------------------------------------------------------------------
    def partial_path(self, model: ModelRef) -> Path:
        """Folder of the download."""
        return self._partials / model.namespace / model.name

    def partials(self) -> dict[ModelRef, int]:
        """Downloads that were begun, and their bytes on disk."""
        return {model: self.partial_bytes(model) for model in _pairs(self._partials)}

    def partial_bytes(self, model: ModelRef) -> int:
        """Bytes that the download has on disk."""
        walked = os.walk(self.partial_path(model))
        return sum(_size_bytes(Path(folder) / name) for folder, _, names in walked for name in names)

    def drop_partial(self, model: ModelRef) -> None:
        """Forget the download."""
        self._discard(self.partial_path(model))

    # --- evictions -------------------------------------------------------------------------------------------
    def evict(self, model: ModelRef, size_bytes: int) -> None:
        """Delete the copy and remember that it was here."""
        try:
            self._note_eviction(model, size_bytes)
        except OSError:
            self.remove(model)  # The disk is full, which may be why it goes: then the other way round.
            self._note_eviction(model, size_bytes)
        self.remove(model)

    def _note_eviction(self, model: ModelRef, size_bytes: int) -> None:
        marker = self._evictions / model.namespace / model.name
        marker.parent.mkdir(exist_ok=True)
        marker.write_text(str(size_bytes), encoding="ascii")

    def evicted(self) -> dict[ModelRef, int]:
        """Evicted Models and their sizes in bytes."""
        found = {}
        for model in _pairs(self._evictions):
            try:
                text = (self._evictions / model.namespace / model.name).read_text(encoding="ascii")
            except FileNotFoundError:
                continue  # A download has brought it back just now.
            found[model] = int(text) if text.isdigit() else 0
        return found

    def forget_eviction(self, model: ModelRef) -> None:
        """It is back, or nobody wants it any more."""
        (self._evictions / model.namespace / model.name).unlink(missing_ok=True)

    # --- room ------------------------------------------------------------------------------------------------
    def disk_kept_free_bytes(self) -> int:
        """What copies leave of the file system to others."""
        return max(LEAST_FREE_BYTES, shutil.disk_usage(self.root).total * self._keep_free_percent // 100)

    def disk_room_bytes(self) -> int:
        """What may still be written; below 0 where others have taken some of what is kept free."""
        return shutil.disk_usage(self.root).free - self.disk_kept_free_bytes()

    @property
    def _partials(self) -> Path:
        return self.root / ".partial"

    @property
    def _evictions(self) -> Path:
        return self.root / ".evicted"

    @property
    def _trash(self) -> Path:
        return self.root / ".trash"

    def _record(self, model: ModelRef) -> Record | None:
        try:
            raw = json.loads((self.copy_path(model) / RECORD).read_bytes())
            return Record(**{**raw, "format": ModelFormat(raw["format"]), "files": tuple(raw["files"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _discard(self, path: Path) -> None:
        """One rename, then the slow deletion, so that nobody ever sees half a copy."""
        away = self._trash / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}"
        try:
            path.rename(away)
        except FileNotFoundError:
            return
        if away.is_dir():
            shutil.rmtree(away)
        else:
            away.unlink()


def _pairs(folder: Path) -> Iterator[ModelRef]:
    if not folder.is_dir():
        return
    for namespace in sorted(folder.iterdir()):
        if namespace.name.startswith(".") or not namespace.is_dir():
            continue
        for entry in sorted(namespace.iterdir()):
            yield ModelRef(namespace.name, entry.name)


def _size_bytes(path: Path) -> int:
    """0 of a file that went meanwhile: a download becomes a copy by one rename, in another thread."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _drop_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        # Not empty, or gone already; both are fine.
        return


def _sync(folder: Path) -> None:
    """Names in the folder reach the disk before the next step."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
