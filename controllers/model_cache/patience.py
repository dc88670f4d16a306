"""How long to wait after a failed fetch: longer with each failure in a row, so that no source is hammered. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controllers.model_cache.errors import FetchError, Interrupted

SPREAD: Final = 0.2
"""Nodes that failed together do not come back together."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last try failed, and when the next may be."""

    message: str
    attempts: int
    not_before_s: float


def after(before: Failure | None, error: FetchError, *, received_bytes: int, now_s: float, chance: float) -> Failure:
    """The failure to remember. A try that was interrupted but brought bytes starts the row anew. `chance` is 0…1."""
    moved = isinstance(error, Interrupted) and received_bytes > 0
    attempts = 1 if before is None or moved else before.attempts + 1
    plain_s = min(error.patience_s * 2 ** min(attempts - 1, 20), error.most_s)
    return Failure(str(error), attempts, now_s + plain_s * (1 - SPREAD + 2 * SPREAD * chance))
