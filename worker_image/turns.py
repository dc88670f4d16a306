"""Who waits comes by turns of those it belongs to, so that nobody with many keeps another's one waiting."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Of one owner in the order they came. Keeps no owner that has nothing."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._last = ""

    def add(self, owner: str, item: T) -> None:
        self._waiting.setdefault(owner, deque()).append(item)

    def next(self) -> T | None:
        """Takes one out; None where nothing waits."""
        if not self._waiting:
            return None
        if self._last in self._waiting:
            self._waiting.move_to_end(self._last)
        owner, items = self._waiting.popitem(last=False)
        self._last = owner
        item = items.popleft()
        if items:
            self._waiting[owner] = items
        return item
