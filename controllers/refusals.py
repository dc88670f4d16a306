"""What the API server does not take, as a status tells it: a refusal at once, what may pass by itself when it lasts.

A text may name a request or a time, and be another at each attempt: written each time, every status would wake its own
writer. Nothing here writes or tries again; that is its reconciler's, and the queue's.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from kube.errors import AlreadyExists, AnswerError, Forbidden, Invalid, Unreachable

NOT_TAKEN: Final = (AnswerError, Unreachable)
LASTS: Final = timedelta(seconds=30)
"""A cache that is behind and a webhook that restarts are over by then."""
_FOR_A_PERSON: Final = (Forbidden, Invalid, AlreadyExists)


@dataclass(frozen=True, slots=True)
class _Told:
    text: str
    generation: int
    at: datetime


class Refusals:
    """By whatever is written: the text that is told of it, and since when it has not been taken."""

    def __init__(self) -> None:
        self._since: dict[Hashable, datetime] = {}
        self._told: dict[Hashable, _Told] = {}

    def told(self, key: Hashable) -> str | None:
        """None where all was taken, or what was not may still pass."""
        told = self._told.get(key)
        return told.text if told else None

    def hear(self, key: Hashable, error: AnswerError | Unreachable, now: datetime, *, generation: int) -> bool:
        """Whether there is something new to tell of the spec that has this generation."""
        since = self._since[key] = min(self._since.get(key, now), now)  # A clock may be set back.
        is_for_a_person = isinstance(error, _FOR_A_PERSON)
        if not is_for_a_person and now - since < LASTS:
            return False
        text = str(error) if is_for_a_person else f"{error} It is tried again."
        told = self._told.get(key)
        if told and (told.text == text or (told.generation == generation and timedelta() <= now - told.at < LASTS)):
            return False
        self._told[key] = _Told(text, generation, now)
        return True

    def forget(self, key: Hashable) -> None:
        """It was taken, or is wanted no more."""
        self._since.pop(key, None)
        self._told.pop(key, None)
