"""Long computations whose state is kept in the user's cache folder now and then, so that a stopped one goes on.

Only our own private folder is read: what is kept is a pickle. What nobody came back for is thrown away after a week.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cli.errors import CliError

SAVE_EVERY_S = 10.0
KEPT_S = 7 * 86_400.0
FORM: Final = 3
"""Of what is kept, and of what is computed from it; states of another one are not gone on with."""


class Saver:
    """Passes progress on and keeps the state from time to time."""

    def __init__(
        self, path: Path, state: object, progress: Callable[[float], None], every_s: float | None = None
    ) -> None:
        self._path, self._state, self._progress = path, state, progress
        self._every_s = SAVE_EVERY_S if every_s is None else every_s
        self._saved_s = time.monotonic()
        self._is_told = False

    def __call__(self, share: float) -> None:
        self._progress(share)
        if time.monotonic() - self._saved_s >= self._every_s and share < 1:
            self.save()

    def save(self) -> None:
        """A folder that takes nothing costs no more than that a stopped run begins anew."""
        try:
            self._write()
        except OSError as error:
            if not self._is_told:
                print(f"The state cannot be kept: {error}. A run that is stopped begins anew.", file=sys.stderr)
            self._is_told = True
        self._saved_s = time.monotonic()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _throw_away_old(self._path.parent)
        partial = self._path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(pickle.dumps(self._state))
        partial.replace(self._path)


def _throw_away_old(folder: Path) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another command was sooner
            if time.time() - path.stat().st_mtime > KEPT_S:
                path.unlink()


def place_of(suffix: str, *inputs: object) -> Path:
    """Where the state of a computation lies that depends on nothing but these."""
    return cache_folder() / f"{_digest(FORM, *inputs)[:24]}.{suffix}"


def _digest(*values: object) -> str:
    """Another one for whatever differs in any field or number. What is no dataclass or array counts as it is shown."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            said = repr((value.dtype, value.shape)).encode() + value.tobytes()
        elif is_dataclass(value):
            said = _digest(*(getattr(value, field.name) for field in fields(value) if field.repr)).encode()
        else:
            said = repr(value).encode()
        digest.update(hashlib.sha256(said).digest())
    return digest.hexdigest()


def forget(path: Path) -> None:
    """Where it can be: what stays is thrown away with what is old."""
    with contextlib.suppress(OSError):
        path.unlink()


def restored(path: Path) -> object:
    """A kept state; None when there is none or it is of another version."""
    try:
        return pickle.loads(path.read_bytes())
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError, TypeError):
        return None


def stopped(*places: Path) -> CliError:
    """Of a person who pressed Ctrl-C, with where states may lie that the same command would find."""
    if any(map(os.path.exists, places)):
        return CliError("Stopped. The same command goes on from the last state that was kept.")
    return CliError("Stopped before a state was kept. The same command begins anew.")


def cache_folder() -> Path:
    """Where the states lie."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "foretide" / "simulate"
