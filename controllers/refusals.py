"""What the API server does not take, as a status tells it: a refusal at once, what may pass by itself when it lasts.

Nothing here writes or tries again; that is its reconciler's, and the queue's.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import Final

from kube.errors import AlreadyExists, AnswerError, Forbidden, Invalid, Unreachable

NOT_TAKEN: Final = (AnswerError, Unreachable)
LASTS: Final = timedelta(seconds=30)
"""A cache that is behind and a webhook that restarts are over by then."""
_FOR_A_PERSON: Final = (Forbidden, Invalid, AlreadyExists)


class Refusals:
    """By whatever is written: the text that is told of it, and since when it has not been taken."""

    def __init__(self) -> None:
        self._since: dict[Hashable, datetime] = {}
        self._told: dict[Hashable, str] = {}

    def told(self, key: Hashable) -> str | None:
        """None where all was taken, or what was not may still pass."""
        return self._told.get(key)

    def hear(self, key: Hashable, error: AnswerError | Unreachable, now: datetime) -> bool:
        """Whether there is something new to tell."""
        since = self._since.setdefault(key, now)
        is_for_a_person = isinstance(error, _FOR_A_PERSON)
        if not is_for_a_person and now - since < LASTS:
            return False
        text = str(error) if is_for_a_person else f"{error} It is tried again."
        is_news = self._told.get(key) != text
        self._told[key] = text
        return is_news

    def forget(self, key: Hashable) -> None:
        """It was taken, or is wanted no more."""
        self._since.pop(key, None)
        self._told.pop(key, None)
