"""Brings the files of one source into a folder: continues what is there, hashes every byte, checks what was promised.

One rule for all protocols: the hash of a continued file is computed again from the bytes on disk, so nothing but the
bytes themselves has to survive a crash. Sources say what there is and give bytes from an offset on; they never write.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any, Final, Protocol

from controllers.model_cache.errors import Interrupted, NoRoom, SourceRefused, WrongContent
from controllers.plans.units import bytes_text

READ_BYTES: Final = 1 << 20
VERSIONS: Final = ".versions"
"""File in the folder, until the copy is published: which version of each file the bytes on disk belong to."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a source."""

    path: str
    """Place in the copy, relative and without '..'."""
    size_bytes: int | None = None
    version: str | None = None
    """ETag, revision or digest: bytes of different versions must not be mixed. None: cannot be continued."""
    sha256: str | None = None
    """Hex digest that the source itself promises."""
    where: Any = None
    """The source's own handle."""


@dataclass(frozen=True, slots=True)
class Part:
    """An answer: the bytes of a file from `offset` on (0 when the source cannot continue)."""

    offset: int
    total_bytes: int | None
    chunks: AsyncGenerator[bytes, None]


class Source(Protocol):
    """One source of weights. Everything it raises is a `FetchError`."""

    async def files(self) -> Sequence[RemoteFile]:
        """What there is to fetch."""
        ...

    async def read(self, file: RemoteFile, offset: int) -> Part:
        """The bytes from `offset` on; `offset` is 0 or less than the size, when that is known."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


@dataclass(slots=True)
class Progress:
    """Where a download is. Read by the reporter at any time."""

    done_bytes: int = 0
    total_bytes: int | None = None
    received_bytes: int = 0
    """Bytes that came over the wire in this process; rates come from it."""
    hashing: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete download. `digest` is of the one file, or of the list `<hex>  <path>` of several, sorted by path."""

    digest: str
    size_bytes: int
    files: tuple[str, ...]


def safe_path(path: str) -> str:
    """A path that stays inside the copy. Raises SourceRefused."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or any(part == ".." or part.startswith(".") for part in parts):
        raise SourceRefused(f"The source names a file '{path}'; paths must be relative, without '..' or hidden parts.")
    return str(PurePosixPath(*parts))


def is_hidden(path: str | PurePath) -> bool:
    """Whether a part of a listed path is hidden: notes of tools, such as `.cache/huggingface` and `.gitattributes`."""
    return any(part.startswith(".") and part != ".." for part in PurePath(path).parts)


def total_of(files: Sequence[RemoteFile]) -> int | None:
    """Bytes of all files, None when one of them is unknown."""
    sizes = [file.size_bytes for file in files]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


@dataclass(slots=True)
class Download:
    """One copy in the making. `room_bytes` is asked before every write."""

    source: Source
    files: Sequence[RemoteFile]
    scope: str
    """Where the files come from: bytes of one source are never continued with those of another."""
    folder: Path
    room_bytes: Callable[[], int]
    progress: Progress = field(default_factory=Progress)

    async def run(self) -> Fetched:
        """All files, one after the other. Raises FetchError; what is on disk stays unless it is wrong."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.progress.total_bytes = total_of(self.files)
        versions = _Versions(self.folder, self.scope)
        versions.keep_only(self.files)
        digests: dict[str, str] = {}
        sizes = 0
        for file in self.files:
            self.progress.done_bytes = sizes
            digests[file.path] = await self._file(file, versions, sizes)
            sizes += (self.folder / file.path).stat().st_size
        return Fetched(_digest(digests), sizes, tuple(sorted(digests)))

    async def _file(self, file: RemoteFile, versions: _Versions, before_bytes: int) -> str:
        path = self.folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not versions.continues(file):
            path.unlink(missing_ok=True)
            versions.note(file)
        with _full_disk_is_a_sentence(), path.open("ab") as out:
            hasher = await self._hash_of_disk(path, before_bytes)
            have = path.stat().st_size
            if file.size_bytes is None or have < file.size_bytes:
                hasher = await self._append(file, out, hasher, have, before_bytes)
            out.flush()
            await asyncio.to_thread(os.fsync, out.fileno())
        return self._checked(file, path, hasher.hexdigest())

    async def _hash_of_disk(self, path: Path, before_bytes: int) -> Any:
        hasher = hashlib.sha256()
        self.progress.hashing = True
        with path.open("rb") as file:
            while block := await asyncio.to_thread(_hash_block, file, hasher):
                self.progress.done_bytes += block
        self.progress.hashing = False
        return hasher

    async def _append(self, file: RemoteFile, out: IO[bytes], hasher: Any, have: int, before_bytes: int) -> Any:
        part = await self.source.read(file, have)
        async with aclosing(part.chunks):
            if part.offset != have:
                # The source starts again from the beginning: so do we.
                out.truncate(0)
                hasher, have = hashlib.sha256(), 0
                self.progress.done_bytes = before_bytes
            if self.progress.total_bytes is None and len(self.files) == 1:
                self.progress.total_bytes = part.total_bytes
            async for chunk in part.chunks:
                if have < part.offset:
                    raise Interrupted(
                        f"'{file.path}' came from byte {part.offset} on where another one was asked for;"
                        " it is fetched from its start."
                    )
                self._check_room(len(chunk))
                await asyncio.to_thread(_write, out, hasher, chunk)
                have += len(chunk)
                self.progress.done_bytes += len(chunk)
                self.progress.received_bytes += len(chunk)
                if file.size_bytes is not None and have > file.size_bytes:
                    break
        expected = file.size_bytes if file.size_bytes is not None else part.total_bytes
        if expected is not None and have < expected:
            raise Interrupted(
                f"'{file.path}' ended after {bytes_text(have)} of {bytes_text(expected)}; it is continued from there."
            )
        return hasher

    def _check_room(self, next_bytes: int) -> None:
        free = self.room_bytes()
        if next_bytes > free:
            raise NoRoom(
                f"There is no room on this node after {bytes_text(self.progress.done_bytes)}"
                f"{_of(self.progress.total_bytes)}; {bytes_text(max(free, 0))} more may be taken. Free the node's disk,"
                " or raise the cache size."
            )

    def _checked(self, file: RemoteFile, path: Path, found: str) -> str:
        size = path.stat().st_size
        if file.size_bytes is not None and size != file.size_bytes:
            path.unlink()
            raise WrongContent(
                f"'{file.path}' came with {size} bytes where the source promised {file.size_bytes}; it was deleted."
            )
        if file.sha256 is not None and found != file.sha256:
            path.unlink()
            raise WrongContent(
                f"'{file.path}' has digest sha256:{found}; the source itself promised sha256:{file.sha256}."
                " It was deleted and is fetched again."
            )
        return found


class _Versions:
    """Which version of each file is on disk, kept beside the bytes."""

    def __init__(self, folder: Path, scope: str) -> None:
        self._scope = scope
        self._path = folder / VERSIONS
        self._folder = folder
        try:
            found = json.loads(self._path.read_bytes())
            self._known: dict[str, str] = found if isinstance(found, dict) else {}
        except (OSError, ValueError):
            self._known = {}

    def continues(self, file: RemoteFile) -> bool:
        return file.version is not None and self._known.get(file.path) == f"{self._scope} {file.version}"

    def note(self, file: RemoteFile) -> None:
        self._known[file.path] = f"{self._scope} {file.version}"
        self._write()

    def keep_only(self, files: Sequence[RemoteFile]) -> None:
        """Delete bytes of files that the source does not have any more, or that were never noted."""
        wanted = {file.path for file in files}
        for path in [one for one in self._folder.rglob("*") if one.is_file() and one != self._path]:
            if str(path.relative_to(self._folder)) not in wanted:
                path.unlink()

    def _write(self) -> None:
        new = self._path.with_name(f"{VERSIONS}.new")
        with _full_disk_is_a_sentence():
            new.write_text(json.dumps(self._known), encoding="utf-8")
            new.replace(self._path)


@contextmanager
def _full_disk_is_a_sentence() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoRoom(f"The disk of this node is full: {error.strerror}. Free space on it.") from error


def _hash_block(file: IO[bytes], hasher: Any) -> int:
    block = file.read(READ_BYTES)
    hasher.update(block)
    return len(block)


def _write(out: IO[bytes], hasher: Any, chunk: bytes) -> None:
    out.write(chunk)
    hasher.update(chunk)


def _digest(digests: dict[str, str]) -> str:
    if len(digests) == 1:
        return f"sha256:{next(iter(digests.values()))}"
    listing = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"


def _of(total_bytes: int | None) -> str:
    return "" if total_bytes is None else f" of {bytes_text(total_bytes)}"
