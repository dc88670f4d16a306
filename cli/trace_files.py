"""Traces on disk: finds out what a file or folder is and reads it, plain or gzipped.

Reads only. The formats themselves are `forecasting.simulator.traces` and `.servegen`.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.errors import CliError
from forecasting.errors import ForecastingError
from forecasting.simulator.requests import Requests
from forecasting.simulator.servegen import Clients, read_clients
from forecasting.simulator.traces import read_requests

CLIENT_SUFFIX = "-trace.csv"
TEXT = "utf-8-sig"
"""Spreadsheets begin a CSV with a mark, which is no part of it."""
MOST_BYTES = 4 * 2**30
"""Unpacked: what a small file unpacks to is not known before."""
MOST_LINE_CHARS = 64 * 2**20
"""AIBrix has the requests of a moment in one line."""
_DAMAGED = (OSError, UnicodeDecodeError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError)


def read_trace(path: Path) -> Requests | Clients:
    """Requests of a single file, or the client windows of a ServeGen folder or archive.

    Raises:
        CliError: there is no such file, or it cannot be read; says file and line.
    """
    try:
        if not path.exists():
            raise CliError(f"{path}: no such file. Give a CSV (arrival_s,input_tokens,output_tokens) or an archive.")
        if path.is_dir() or _is_archive(path):
            return read_clients(_clients(path))
        with _text(path) as lines:
            return read_requests(str(path), _bounded(lines, path))
    except (ForecastingError, *_DAMAGED) as error:
        raise CliError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def _bounded(lines: io.TextIOBase, path: Path) -> Iterator[str]:
    """Its lines. Raises CliError where they are too long, or too many."""
    left = MOST_BYTES
    while line := lines.readline(MOST_LINE_CHARS + 1):
        left -= len(line)
        if len(line) > MOST_LINE_CHARS or left < 0:
            raise CliError(f"{path}: has a line of over {MOST_LINE_CHARS} characters, or over {MOST_BYTES} in all.")
        yield line


def _is_archive(path: Path) -> bool:
    return path.name.endswith((".tar.gz", ".tgz", ".tar"))


def _clients(path: Path) -> dict[str, list[str]]:
    if path.is_dir():
        files = sorted(path.rglob(f"*{CLIENT_SUFFIX}"))
        return {str(file): file.read_text(encoding=TEXT).splitlines() for file in files}
    with tarfile.open(path) as archive:
        return dict(_members(archive, path))


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[tuple[str, list[str]]]:
    left = MOST_BYTES
    for member in archive.getmembers():
        if member.isfile() and member.name.endswith(CLIENT_SUFFIX):
            left -= member.size
            if left < 0:
                raise CliError(f"{path}: its traces unpack to more than the {MOST_BYTES} bytes allowed.")
            content = archive.extractfile(member)
            if content is not None:
                yield f"{path}:{member.name}", content.read().decode(TEXT).splitlines()


@contextmanager
def _text(path: Path) -> Iterator[io.TextIOBase]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding=TEXT) as lines:
            yield lines
    else:
        with path.open(encoding=TEXT) as lines:
            yield lines
