"""The one interface behind which the order of requests is decided.

A policy holds those who wait and ranks those who run. It knows nothing of rows, blocks and steps, and moves nobody: it
says who is first, who gives way to whom, and is told of what was served.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Many
from typing import Protocol

from worker_image.engine.sequence import Sequence


class Policy(Protocol):
    reorders: bool
    """False: those who run stay in the order in which they came in, and nobody gives way to one who waits."""
    meters: bool
    """Wants to hear of every token."""

    def __len__(self) -> int:
        """How many wait."""

    def __iter__(self) -> Iterator[Sequence]:
        """All who wait, in no order that matters."""

    def add(self, sequence: Sequence) -> None:
        """It is new, and waits."""

    def take_back(self, sequence: Sequence) -> None:
        """It ran, had to give way, and waits again."""

    def remove(self, sequence: Sequence) -> None:
        """It waits no longer."""

    def forget(self, sequence: Sequence) -> None:
        """It has ended, and neither waits nor runs."""

    def head(self, now: float) -> Sequence | None:
        """Whose turn it is."""

    def first(self, most: int) -> list[Sequence]:
        """Up to so many of those who wait, best first."""

    def oldest(self) -> Sequence | None:
        """Who has waited longest."""

    def rank(self, sequence: Sequence) -> tuple[float, float]:
        """Among those who run: the lower goes first, the highest gives way first."""

    def displaces(self, waiting: Sequence, running: Sequence) -> bool:
        """Whether `running` is to give its place to `waiting`. Never both ways for two sequences."""

    def admitted(self, sequence: Sequence) -> None:
        """Its prompt is about to be computed, for the first time."""

    def decoded(self, sequences: Many[Sequence]) -> None:
        """Each gets a token. Only where `meters`. The same tuple while the same sequences decode."""
