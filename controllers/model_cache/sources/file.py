"""file:///path: copied from a folder of the node that the administrator opened for Models, and from nowhere else."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from controllers.model_cache.download import READ_BYTES, Part, RemoteFile, is_hidden, safe_path
from controllers.model_cache.errors import FetchError, Interrupted, SourceRefused
from controllers.model_cache.sources.blocking import in_thread, pieces
from controllers.plans.model_volume import cached_name


class FileSource:
    """A file, or a folder with all that lies in it."""

    def __init__(self, uri: str, roots: Sequence[Path]) -> None:
        self._path = Path(unquote(urlsplit(uri).path))
        self._name = cached_name(uri)
        self._roots = roots

    async def files(self) -> Sequence[RemoteFile]:
        return await in_thread(self._list, self._explain, OSError)

    async def read(self, file: RemoteFile, offset: int) -> Part:
        reader = await in_thread(lambda: self._open(file, offset), self._explain, OSError)
        return Part(offset, file.size_bytes, pieces(reader, READ_BYTES, self._explain, OSError))

    async def close(self) -> None:
        """Holds nothing between calls."""

    def _list(self) -> list[RemoteFile]:
        start = self._allowed(self._path)
        if start.is_file():
            return [self._remote(start, self._name if self._name != "." else start.name)]
        inside = sorted(path for path in start.rglob("*") if path.is_file() and not is_hidden(path.relative_to(start)))
        if not inside:
            raise SourceRefused(f"Folder '{self._path}' holds no files. Check spec.source.")
        prefix = "" if self._name == "." else f"{self._name}/"
        return [self._remote(self._allowed(path), f"{prefix}{path.relative_to(start)}") for path in inside]

    def _remote(self, path: Path, name: str) -> RemoteFile:
        found = path.stat()
        return RemoteFile(safe_path(name), found.st_size, _version(found), where=path)

    def _allowed(self, path: Path) -> Path:
        """The real path, if it lies under an allowed root; links do not lead out."""
        real = Path(os.path.realpath(path))
        if any(real.is_relative_to(os.path.realpath(root)) for root in self._roots):
            if real.exists():
                return real
            raise SourceRefused(f"'{path}' does not exist on this node. Check spec.source.")
        allowed = ", ".join(f"'{root}'" for root in self._roots) or "none"
        raise SourceRefused(
            f"'{path}' is not under a folder that Models may be copied from ({allowed})."
            " An administrator opens folders of the nodes in the Helm value modelCache.fileRoots."
        )

    def _open(self, file: RemoteFile, offset: int) -> BinaryIO:
        """What was listed, and not what a link put in its place since leads to: the agent may read all of the node."""
        # A pipe would otherwise be waited for.
        reader = os.fdopen(os.open(file.where, os.O_RDONLY | os.O_NONBLOCK), "rb")
        try:
            self._allowed(Path(f"/proc/self/fd/{reader.fileno()}").readlink())
            found = os.fstat(reader.fileno())
            if not stat.S_ISREG(found.st_mode) or _version(found) != file.version:
                raise Interrupted(f"'{file.where}' changed while it was copied; it is copied again.")
            reader.seek(offset)
        except BaseException:
            reader.close()
            raise
        return reader

    def _explain(self, error: Exception) -> FetchError:
        if isinstance(error, PermissionError):
            return SourceRefused(f"'{self._path}' may not be read by the node agent (user {os.getuid()}).")
        return Interrupted(f"'{self._path}' cannot be read: {error}.")


def _version(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns}-{found.st_size}"
