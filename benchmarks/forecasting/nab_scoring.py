"""The Numenta Anomaly Benchmark's score, from its published description (Lavin and Ahmad 2015), and two plainer ones.

    a detection within a window       weight × s(y) / s(-1), y from -1 (left edge) to 0 (right); the best counts
    a window without a detection      -weight of a miss
    any other detection               weight of a false alarm × s(y), y in widths of the window before, -1 beyond 3 of
                                      them or without one
    s(y) = 2 / (1 + exp(5 y)) - 1

The first 15 % of a file, at most 750 rows, count for nothing. One threshold for the whole corpus, the one with the best
score. 100 is perfect and early, 0 is never saying anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.forecasting.data import NabFile
from forecasting.series import Array

PROBATION_SHARE: Final = 0.15
PROBATION_ROWS: Final = 750


@dataclass(frozen=True, slots=True)
class Profile:
    """Weights of an application profile."""

    name: str
    hit: float
    miss: float
    false_alarm: float


STANDARD: Final = Profile("standard", 1.0, 1.0, 0.11)
LOW_FALSE_ALARMS: Final = Profile("few false alarms", 1.0, 1.0, 0.22)
LOW_MISSES: Final = Profile("few misses", 1.0, 2.0, 0.11)


@dataclass(frozen=True, slots=True)
class Scored:
    """score: 0 to 100 and below. threshold: of the detector's score."""

    score: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Events:
    """Windows found, windows missed, alarms outside of any window, days watched."""

    found: int
    missed: int
    false_alarms: int
    days: float

    @property
    def f1(self) -> float:
        return 2 * self.found / max(2 * self.found + self.missed + self.false_alarms, 1)

    @property
    def false_alarms_a_day(self) -> float:
        return self.false_alarms / self.days


def probation(rows: int) -> int:
    return min(int(PROBATION_SHARE * rows), PROBATION_ROWS)


def sigmoid(position: Array) -> Array:
    return np.where(position > 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(position, 3))) - 1)


def row_values(file: NabFile, profile: Profile) -> tuple[Array, npt.NDArray[np.int64]]:
    """What a detection at each row is worth, and the window it is in (-1 for none)."""
    n = len(file.values)
    worth, inside = np.full(n, -profile.false_alarm), np.full(n, -1, dtype=np.int64)
    for first, last in file.windows:
        after = np.arange(last + 1, n)
        worth[after] = profile.false_alarm * sigmoid((after - last) / max(last - first, 1))
    for at, (first, last) in enumerate(file.windows):
        rows = np.arange(first, last + 1)
        position = -(last - rows + 1) / (last - first + 1)
        worth[rows] = profile.hit * sigmoid(position) / float(sigmoid(np.array(-1.0)))
        inside[rows] = at
    return worth, inside


def best(files: Sequence[NabFile], scores: Sequence[Array], profile: Profile) -> Scored:
    """The score at the threshold that is best for the corpus; 0 (silence) where no threshold helps."""
    rows = _rows_by_score(files, scores, profile)
    windows = sum(len(file.windows) for file in files)
    raw, highest, threshold = -profile.miss * windows, -profile.miss * windows, np.inf
    credit: dict[int, float] = {}
    for at, (score, worth, window) in enumerate(rows):
        if window < 0:
            raw += worth
        else:
            before = credit.get(window, -profile.miss)
            credit[window] = max(before, worth)
            raw += credit[window] - before
        last_of_its_score = at + 1 == len(rows) or rows[at + 1][0] < score
        if last_of_its_score and raw > highest:
            highest, threshold = raw, score
    silent, perfect = -profile.miss * windows, profile.hit * windows
    return Scored(100 * (highest - silent) / (perfect - silent) if windows else 0.0, float(threshold))


def _rows_by_score(
    files: Sequence[NabFile], scores: Sequence[Array], profile: Profile
) -> list[tuple[float, float, int]]:
    """(score, worth, number of the window in the corpus or -1), the highest score first; rows that score are > 0."""
    rows: list[tuple[float, float, int]] = []
    windows_before = 0
    for file, score in zip(files, scores, strict=True):
        worth, inside = row_values(file, profile)
        for row in range(probation(len(score)), len(score)):
            if score[row] > 0:
                window = int(inside[row]) + windows_before if inside[row] >= 0 else -1
                rows.append((float(score[row]), float(worth[row]), window))
        windows_before += len(file.windows)
    return sorted(rows, key=lambda row: -row[0])


def events(files: Sequence[NabFile], scores: Sequence[Array], threshold: float) -> Events:
    """Alarms are runs of rows at or above the threshold."""
    found = missed = false_alarms = 0
    days = 0.0
    for file, score in zip(files, scores, strict=True):
        skipped = probation(len(score))
        days += file.days * (1 - skipped / len(score))
        alarm = np.concatenate([[False], score[skipped:] >= threshold])
        begins = np.flatnonzero(alarm[1:] & ~alarm[:-1]) + skipped
        outside = [row for row in begins if not any(first <= row <= last for first, last in file.windows)]
        false_alarms += len(outside)
        hits = sum(bool((score[max(first, skipped) : last + 1] >= threshold).any()) for first, last in file.windows)
        found, missed = found + hits, missed + len(file.windows) - hits
    return Events(found, missed, false_alarms, days)
