"""Reading of the data sets: M4 folders, NAB folders and request traces, each as the plain values that a measure needs.

Which kind a file or folder is, is read off its content; a kind that is not known is refused with the ones that are.
Nothing is downloaded, and nothing of the data is copied.
"""

from __future__ import annotations

import csv
import gzip
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TextIO

import numpy as np

from forecasting.series import Aggregate, Array, Series, regularise

TRACE_STEP_S: Final = 600.0
SHORT_STEP_S: Final = 10.0
SHORT_S: Final = 6 * 3600.0
"""A trace that is shorter than this is cut into steps of SHORT_STEP_S."""
CLIENTS: Final = 4
"""Series taken of an archive of clients."""
SKIPPED_CLIENTS: Final = 12
"""The largest clients were looked at while the intervals were made; the next ones were not."""


class UnknownData(Exception):
    """A path that is of no kind that is read here."""


@dataclass(frozen=True, slots=True)
class M4Series:
    name: str
    history: Array
    actual: Array
    """(48,)"""


@dataclass(frozen=True, slots=True)
class NabFile:
    """windows: first and last row of each labelled window."""

    name: str
    step_s: float
    days: float
    values: Array
    windows: tuple[tuple[int, int], ...]


def open_text(path: Path) -> TextIO:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def is_m4(folder: Path) -> bool:
    return bool(list(folder.glob("*-train.csv*")))


def is_nab(folder: Path) -> bool:
    return (folder / "labels" / "combined_windows.json").is_file()


def read_m4(folder: Path) -> list[M4Series]:
    """`*-train.csv[.gz]` and `*-test.csv[.gz]`: a header, then a name and its values a row."""
    train, test = (_m4_rows(next(iter(sorted(folder.glob(f"*-{part}.csv*"))))) for part in ("train", "test"))
    return [M4Series(name, values, test[name]) for name, values in train.items() if name in test]


def _m4_rows(path: Path) -> dict[str, Array]:
    with open_text(path) as lines:
        rows = csv.reader(lines)
        next(rows)
        return {row[0]: np.array([float(cell) for cell in row[1:] if cell not in ("", "NA")]) for row in rows}


def read_nab(folder: Path) -> list[NabFile]:
    """`labels/combined_windows.json` and those files of `data/` that it names and that are there."""
    windows = json.loads((folder / "labels" / "combined_windows.json").read_text(encoding="utf-8"))
    found = ((name, _existing(folder / "data" / name)) for name in sorted(windows))
    return [_nab_file(name, path, windows[name]) for name, path in found if path is not None]


def _existing(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _nab_file(name: str, path: Path, windows: list[list[str]]) -> NabFile:
    with open_text(path) as lines:
        rows = [row for row in csv.reader(lines) if row][1:]
    times = np.array([datetime.fromisoformat(row[0]).timestamp() for row in rows])
    bounds = []
    for first, last in windows:
        inside = np.flatnonzero(
            (times >= datetime.fromisoformat(first).timestamp()) & (times <= datetime.fromisoformat(last).timestamp())
        )
        bounds.append((int(inside[0]), int(inside[-1])))
    step_s = float(np.median(np.diff(times)))
    days = float(times[-1] - times[0]) / 86_400
    return NabFile(name, step_s, days, np.array([float(row[1]) for row in rows]), tuple(bounds))


def read_trace(path: Path) -> list[Series]:
    """Requests a second over time: a file of rates, of arrivals, or an archive of clients' rates.

    Raises: UnknownData.
    """
    name = path.name.split(".")[0]
    if ".tar" in path.name:
        return _clients(path, name)
    with open_text(path) as lines:
        first = lines.readline()
        rest = list(lines)
    lines_left = [line for line in [first, *rest] if line.strip()]
    if first.startswith("{"):
        return [_arrivals(name, _json_times(lines_left))]
    head = first.split(",")[0].strip().lower()
    if head == "start_s" or head.replace(".", "", 1).isdigit():
        return [_rates(name, [line.split(",") for line in lines_left[head == "start_s" :]])]
    if head == "timestamp":
        times = [datetime.fromisoformat(line.split(",")[0].strip()).timestamp() for line in lines_left[1:]]
        return [_arrivals(name, np.array(times))]
    raise UnknownData(
        f"{path}: its first line begins '{first[:40].strip()}'. Known are CSVs of start_s,rate,… or"
        " TIMESTAMP,…, JSON lines with a timestamp in ms, and .tar.gz archives of clients' rate CSVs."
    )


def _json_times(lines: list[str]) -> Array:
    """A line is one request, or several of one moment under `requests`."""
    times: list[float] = []
    for line in lines:
        said = json.loads(line)
        times += [float(said["timestamp"]) / 1e3] * len(said.get("requests", [None]))
    return np.array(times)


def _arrivals(name: str, times_s: Array) -> Series:
    """Requests a second. The step that the recording ends in is cut off: it is not whole."""
    step_s = SHORT_STEP_S if times_s[-1] - times_s[0] < SHORT_S else TRACE_STEP_S
    counts = np.bincount(((times_s - times_s[0]) // step_s).astype(np.int64))[:-1]
    return Series(0.0, step_s, counts / step_s, name)


def _rates(name: str, rows: list[list[str]]) -> Series:
    """A window without any request at all is a gap of the recording, as the data's own notes say."""
    rates = np.array([float(row[1]) for row in rows])
    times = [float(row[0]) for row in rows]
    return regularise(times, np.where(rates > 0, rates, np.nan), TRACE_STEP_S, aggregate=Aggregate.MEAN, name=name)


def _clients(path: Path, name: str) -> list[Series]:
    """The clients of middling size, with zeros where they were silent while others were not."""
    clients = dict(_members(path))
    silent = np.sum(list(clients.values()), axis=0) == 0
    order = sorted(clients, key=lambda client: -float(clients[client].sum()))
    chosen = order[SKIPPED_CLIENTS : SKIPPED_CLIENTS + CLIENTS] or order[:CLIENTS]
    return [
        Series(0.0, TRACE_STEP_S, np.where(silent, np.nan, clients[client]), f"{name}/{client}") for client in chosen
    ]


def _members(path: Path) -> Iterator[tuple[str, Array]]:
    with tarfile.open(path) as archive:
        texts = {m.name: archive.extractfile(m) for m in archive.getmembers() if m.name.endswith("-trace.csv")}
        rows = {
            Path(name).name.removesuffix("-trace.csv"): [line.split(b",") for line in file.read().splitlines() if line]
            for name, file in texts.items()
            if file is not None
        }
    last = max(float(row[0]) for lines in rows.values() for row in lines)
    for client, lines in rows.items():
        values = np.zeros(int(last // TRACE_STEP_S) + 1)
        for row in lines:
            values[int(float(row[0]) // TRACE_STEP_S)] = float(row[1])
        yield client, values
