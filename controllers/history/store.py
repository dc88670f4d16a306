"""What the operator remembers over its own restarts, in one SQLite file: counts, cold starts, capacities, decisions.

Bounded by age and by size, as far as it grows by itself: alerts, capacities and what answers are like are as many as
there are. Every method blocks for as long as the disk takes: callers go through `controllers.history.thread`. A file
that is damaged is put aside and a new one begun, and on a disk that is full or fails all is kept in memory: history is
worth a warning, never an outage.
"""

from __future__ import annotations

import errno
import logging
import shutil
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from controllers.history.counters import Row
from controllers.history.interface import Counts, HistoryError, ServiceId, StoreUnusable, empty

log = logging.getLogger(__name__)

FINE_S: Final = 60
FINE_KEPT_S: Final = 2 * 86_400
COARSE_S: Final = 600
COLD_STARTS_KEPT: Final = 200
"""For each profile: enough for a 95th percentile, few enough to follow a new driver or a new disk."""
DECISIONS_KEPT: Final = 2_000
"""For each service."""
_DECISIONS_SHARE: Final = 0.25
"""Of the allowed size: beyond it decisions, which are only looked back at, go before what forecasts are made of."""
_LEAST_OBSERVED: Final = 0.5
"""Of a step; a step that was watched for less is a gap."""
_SHRINK: Final = 0.8
"""Of the allowed size; what is above goes, oldest first, so that pruning does not run all the time."""
_LEAST_SHARE: Final = 0.25
"""Of the allowed size: so much of what can be pruned stays, however large the rest is."""
_COUNT_BYTES: Final = 100
"""Of a row of numbers with its index, about."""
_PRUNED: Final = ("counts", "decisions", "cold_starts")

_DISK: Final = frozenset(
    (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM)
)
"""What says nothing about the file or its folder: no room, a disk that fails, or somebody else holds it."""
_FOLDER: Final = frozenset((sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM))
"""What a person has to set right: a place that cannot be written."""
_ROOM: Final = 2**18
"""Bytes on a disk; with less a database cannot even be opened."""
_IN_MEMORY_BYTES: Final = 64 * 2**20
"""At most, in place of a disk: the operator's own memory is small."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS services (id INTEGER PRIMARY KEY, namespace TEXT, name TEXT, UNIQUE (namespace, name));
CREATE TABLE IF NOT EXISTS counts (
  step_s INTEGER, service INTEGER, at_s INTEGER, seconds REAL, arrivals REAL, completed REAL, input_tokens REAL,
  output_tokens REAL, PRIMARY KEY (step_s, service, at_s)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS counts_by_time ON counts (step_s, at_s);
CREATE TABLE IF NOT EXISTS cold_starts (id INTEGER PRIMARY KEY, profile TEXT, at_s REAL, duration_s REAL);
CREATE INDEX IF NOT EXISTS cold_starts_by_profile ON cold_starts (profile, at_s);
CREATE TABLE IF NOT EXISTS capacities (profile TEXT PRIMARY KEY, at_s REAL, work_per_s REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS qualities (
  namespace TEXT, name TEXT, line TEXT, PRIMARY KEY (namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS decisions (id INTEGER PRIMARY KEY, service INTEGER, at_s REAL, line TEXT);
CREATE INDEX IF NOT EXISTS decisions_by_service ON decisions (service, at_s);
CREATE INDEX IF NOT EXISTS decisions_by_time ON decisions (at_s);
CREATE TABLE IF NOT EXISTS alert_books (policy TEXT PRIMARY KEY, epoch INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alert_rows (
  policy TEXT, kind TEXT, id TEXT, line TEXT, PRIMARY KEY (policy, kind, id)) WITHOUT ROWID;
"""
_ADD: Final = """
INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
  seconds = seconds + excluded.seconds, arrivals = arrivals + excluded.arrivals,
  completed = completed + excluded.completed, input_tokens = input_tokens + excluded.input_tokens,
  output_tokens = output_tokens + excluded.output_tokens
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept. Fine steps are kept for two days at most."""

    retention_s: float = 35 * 86_400
    max_bytes: int = 512 * 2**20


class _DiskFails(HistoryError):
    """The folder may be right, the disk is not now."""


class Store:
    """One open file; `None` keeps all in memory, as a disk that is full or fails does. Used by one thread at a time.

    Raises:
        StoreUnusable: the folder cannot be written.
    """

    def __init__(self, path: Path | None, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        try:
            self._db = _open(path)
        except _DiskFails as error:
            most = min(self._limits.max_bytes, _IN_MEMORY_BYTES)
            log.warning("%s The history is kept in memory, %d bytes of it, until the next start.", error, most)
            self._limits = replace(self._limits, max_bytes=most)
            self._db = _open(None)
        self._ids = self._known_services()

    def close(self) -> None:
        self._db.close()

    # --- counts -----------------------------------------------------------------------------------------------------
    def add(self, rows: Mapping[ServiceId, Row], seconds: float, at_s: float) -> None:
        """What happened in the `seconds` before `at_s`, to the step in which they began."""
        began_s = at_s - seconds
        with self._all_or_nothing():
            values = [
                (step_s, self._id(service), int(began_s // step_s * step_s), seconds, *row)
                for service, row in rows.items()
                for step_s in (FINE_S, COARSE_S)
            ]
            self._db.executemany(_ADD, values)

    def counts(self, service: ServiceId, start_s: float, end_s: float, step_s: float) -> Counts:
        """Steps of `step_s`, a multiple of 60 s; of steps watched in part, or twice by a clock that was set back,
        what they would come to as a whole. Of steps that are no multiples of 600 s, two days are known."""
        base_s = COARSE_S if step_s % COARSE_S == 0 else FINE_S
        out = empty(start_s, end_s, step_s)
        n, id_ = len(out.arrivals), self._ids.get(service)
        if id_ is None or not n:
            return out
        query = "SELECT at_s, seconds, arrivals, completed, input_tokens, output_tokens FROM counts"
        where = " WHERE step_s = ? AND service = ? AND at_s >= ? AND at_s < ?"
        found = self._db.execute(query + where, (base_s, id_, start_s, end_s)).fetchall()
        if not found:
            return out
        table = np.array(found, dtype=np.float64)
        step = ((table[:, 0] - start_s) // step_s).astype(np.int64)
        watched_s = np.bincount(step, weights=table[:, 1], minlength=n)
        known = watched_s >= _LEAST_OBSERVED * step_s
        for column, values in zip(out.columns, table[:, 2:].T, strict=True):
            total = np.bincount(step, weights=values, minlength=n)
            column[known] = total[known] * (step_s / watched_s[known])
        return out

    # --- cold starts and capacities -----------------------------------------------------------------------------------
    def add_cold_start(self, profile: str, duration_s: float, at_s: float) -> None:
        """One worker took this long from its creation until it was ready."""
        with self._db:
            self._db.execute("INSERT INTO cold_starts VALUES (NULL, ?, ?, ?)", (profile, at_s, duration_s))
            self._db.execute(
                "DELETE FROM cold_starts WHERE profile = ? AND id NOT IN "
                "(SELECT id FROM cold_starts WHERE profile = ? ORDER BY at_s DESC LIMIT ?)",
                (profile, profile, COLD_STARTS_KEPT),
            )

    def cold_starts(self) -> dict[str, list[float]]:
        """Durations by profile, oldest first."""
        found: dict[str, list[float]] = {}
        for profile, duration_s in self._db.execute("SELECT profile, duration_s FROM cold_starts ORDER BY at_s"):
            found.setdefault(profile, []).append(duration_s)
        return found

    def set_capacity(self, profile: str, work_per_s: float, at_s: float) -> None:
        """What one worker was seen to carry."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO capacities VALUES (?, ?, ?)", (profile, at_s, work_per_s))

    def capacities(self) -> dict[str, float]:
        return dict(self._db.execute("SELECT profile, work_per_s FROM capacities").fetchall())

    def set_quality(self, service: ServiceId, line: str | None) -> None:
        """What its answers are like, as JSON; None forgets it."""
        with self._db:
            if line is None:
                self._db.execute("DELETE FROM qualities WHERE namespace = ? AND name = ?", service)
            else:
                self._db.execute("INSERT OR REPLACE INTO qualities VALUES (?, ?, ?)", (*service, line))

    def qualities(self) -> list[tuple[str, str, str]]:
        """Namespace, name and line of each."""
        return self._db.execute("SELECT namespace, name, line FROM qualities").fetchall()

    # --- decisions ----------------------------------------------------------------------------------------------------
    def add_decisions(self, lines: Sequence[tuple[ServiceId, float, str]]) -> None:
        """(service, when, one JSON line)."""
        with self._all_or_nothing():
            values = [(self._id(service), at_s, zlib.compress(line.encode())) for service, at_s, line in lines]
            self._db.executemany("INSERT INTO decisions VALUES (NULL, ?, ?, ?)", values)
            for service in {service for service, _, _ in lines}:
                self._db.execute(
                    "DELETE FROM decisions WHERE service = ? AND id <= (SELECT id FROM decisions WHERE service = ? "
                    "ORDER BY id DESC LIMIT 1 OFFSET ?)",
                    (self._id(service), self._id(service), DECISIONS_KEPT),
                )

    def decisions(self, service: ServiceId, since_s: float, most: int) -> list[str]:
        """The last `most` lines from `since_s` on, oldest first."""
        query = "SELECT line FROM decisions WHERE service = ? AND at_s >= ? ORDER BY id DESC LIMIT ?"
        found = self._db.execute(query, (self._ids.get(service, -1), since_s, most)).fetchall()
        return [line if isinstance(line, str) else zlib.decompress(line).decode() for (line,) in reversed(found)]

    # --- alerts -------------------------------------------------------------------------------------------------------
    def set_alerts(
        self, policy: str, epoch: int, rows: Sequence[tuple[str, str, str]], gone: Sequence[tuple[str, str]]
    ) -> None:
        """Rows of a policy's book (kind, id, JSON) that changed, and those that are gone; all or nothing."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO alert_books VALUES (?, ?)", (policy, epoch))
            values = [(policy, *row) for row in rows]
            self._db.executemany("INSERT OR REPLACE INTO alert_rows VALUES (?, ?, ?, ?)", values)
            where = "DELETE FROM alert_rows WHERE policy = ? AND kind = ? AND id = ?"
            self._db.executemany(where, [(policy, *one) for one in gone])

    def alerts(self, policy: str) -> tuple[int, list[tuple[str, str, str]]] | None:
        """The epoch and the rows of a policy's book; None when nothing was ever written of it."""
        found = self._db.execute("SELECT epoch FROM alert_books WHERE policy = ?", (policy,)).fetchone()
        if found is None:
            return None
        query = "SELECT kind, id, line FROM alert_rows WHERE policy = ?"
        return int(found[0]), self._db.execute(query, (policy,)).fetchall()

    def alert_policies(self) -> list[str]:
        """Those of which a book is known."""
        return [name for (name,) in self._db.execute("SELECT policy FROM alert_books")]

    def forget_alerts(self, policy: str) -> None:
        """The policy is gone."""
        with self._db:
            self._db.execute("DELETE FROM alert_books WHERE policy = ?", (policy,))
            self._db.execute("DELETE FROM alert_rows WHERE policy = ?", (policy,))

    # --- bounds -------------------------------------------------------------------------------------------------------
    def prune(self, now_s: float) -> None:
        """Drops what is too old, then, while the file is too large, the oldest of everything."""
        oldest_s = now_s - self._limits.retention_s
        with self._db:
            fine_s = max(oldest_s, now_s - FINE_KEPT_S)
            self._db.execute("DELETE FROM counts WHERE step_s = ? AND at_s < ?", (FINE_S, fine_s))
            self._db.execute("DELETE FROM counts WHERE at_s < ?", (oldest_s,))
            self._db.execute("DELETE FROM decisions WHERE at_s < ?", (oldest_s,))
        self._shrink(now_s, oldest_s)
        self._forget_services()
        self._db.executescript("PRAGMA incremental_vacuum")  # Of `execute`, Python takes the first step only.
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @property
    def used_bytes(self) -> int:
        """Pages that hold something."""
        pages, free, size = (self._pragma(name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def _shrink(self, now_s: float, oldest_s: float) -> None:
        if self.used_bytes <= self._limits.max_bytes:
            return
        before = self._pruned_bytes()
        with self._db:  # What a clock wrote that was ahead is no newer than the rest.
            self._db.execute("DELETE FROM decisions WHERE at_s > ?", (now_s + FINE_S,))
        span_s, goal = now_s - oldest_s, _SHRINK * self._limits.max_bytes
        least = _LEAST_SHARE * self._limits.max_bytes
        decided_s = self._older(now_s, span_s, goal, ("decisions",), _DECISIONS_SHARE * self._limits.max_bytes)
        kept_s = self._older(now_s, span_s, goal, _PRUNED, least)
        if self._pruned_bytes() < before:
            log.warning(
                "The history was larger than %d bytes: it now goes back %.1f h, and its decisions %.1f h.",
                self._limits.max_bytes,
                kept_s / 3600,
                min(kept_s, decided_s) / 3600,
            )
        if self.used_bytes > self._limits.max_bytes:
            log.warning(
                "The history takes %d bytes and may take %d; most is what is not pruned: alerts, capacities and what"
                " answers are like. Raise history.maxBytes.",
                self.used_bytes,
                self._limits.max_bytes,
            )

    def _older(self, now_s: float, span_s: float, goal: float, tables: Sequence[str], least: float) -> float:
        """Delete the oldest rows until no more than `goal` bytes are used, or `least` in `tables`; the span left."""
        while span_s > FINE_S and self.used_bytes > goal and self._pruned_bytes(tables) > least:
            span_s *= 0.7
            with self._db:
                for table in tables:
                    self._db.execute(f"DELETE FROM {table} WHERE at_s < ?", (now_s - span_s,))
        return span_s

    def _pruned_bytes(self, tables: Sequence[str] = _PRUNED) -> float:
        """What these take, about."""
        lines = "COUNT(*), COALESCE(SUM(LENGTH(CAST(line AS BLOB))), 0)"
        found = [
            self._db.execute(f"SELECT {lines if table == 'decisions' else 'COUNT(*), 0'} FROM {table}").fetchone()
            for table in tables
        ]
        return float(sum(rows * _COUNT_BYTES + texts for rows, texts in found))

    def _forget_services(self) -> None:
        """Those of which nothing is known any more."""
        with self._db:
            self._db.execute(
                "DELETE FROM services WHERE id NOT IN (SELECT service FROM decisions) AND NOT EXISTS "
                "(SELECT * FROM counts WHERE step_s IN (?, ?) AND service = services.id)",
                (FINE_S, COARSE_S),
            )
        self._ids = self._known_services()

    def _known_services(self) -> dict[ServiceId, int]:
        return {ServiceId(ns, name): id_ for id_, ns, name in self._db.execute("SELECT * FROM services")}

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """A transaction that may name services: those that were new in it go with it."""
        known = len(self._ids)
        try:
            with self._db:
                yield
        except BaseException:
            while len(self._ids) > known:
                self._ids.popitem()
            raise

    def _id(self, service: ServiceId) -> int:
        known = self._ids.get(service)
        if known is None:
            cursor = self._db.execute("INSERT INTO services VALUES (NULL, ?, ?)", service)
            assert cursor.lastrowid is not None, "an insert gives a row id"
            known = self._ids[service] = cursor.lastrowid
        return known


def _open(path: Path | None) -> sqlite3.Connection:
    try:
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if path is None or not path.exists() or _code(error) in _DISK | _FOLDER:
            raise _not_opened(path, error) from error
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        log.warning("The history '%s' is damaged (%s); it is kept as '%s' and begun anew.", path, error, aside.name)
        _put_aside(path, aside)
    try:
        return _connected(path)
    except sqlite3.DatabaseError as error:
        raise _not_opened(path, error) from error


def _put_aside(path: Path, aside: Path) -> None:
    try:
        for old in path.parent.glob(f"{path.name}.damaged-*"):
            old.unlink()
        path.rename(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise _DiskFails(f"The history '{path}' cannot be put aside: {error.strerror}.") from error


def _not_opened(path: Path | None, error: sqlite3.Error) -> HistoryError:
    if path is not None and _is_full(path.parent):
        return _DiskFails(f"The history '{path}' cannot be opened: there is no room on the disk of '{path.parent}'.")
    if _code(error) in _DISK:
        return _DiskFails(f"The history '{path}' cannot be opened: {error}. Check the disk of its folder.")
    return StoreUnusable(f"The history '{path}' cannot be opened: {error}. Check its folder.")


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _ROOM
    except OSError:
        return False  # What it fails with is told by SQLite.


def _code(error: sqlite3.Error) -> int | None:
    """SQLite's own, without its details; None of an error that is ours."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _connected(path: Path | None) -> sqlite3.Connection:
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        kind = _DiskFails if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else StoreUnusable
        raise kind(f"The folder of the history '{path}' cannot be made: {error.strerror}.") from error
    db = sqlite3.connect(path or ":memory:", check_same_thread=False)
    try:
        for pragma in ("auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = NORMAL"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("its pages do not fit together")
        db.executescript(_SCHEMA)
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db
