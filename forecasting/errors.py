"""Everything that the library refuses, so that a caller can tell bad data from a wrong request.

    ForecastingError
    ├── SeriesError               the data cannot be a series
    │   ├── DisorderedTimes       a time is before the one ahead of it
    │   ├── DuplicateTime         two samples of one time
    │   ├── NegativeCount         a load below zero
    │   └── InfiniteValue         a load or a time that is infinite, or a time that is not a number
    ├── HistoryTooShort           fewer observations than the model needs
    └── BadSetting                an argument outside of what is allowed

Never raised for a gap: a gap is a value.
"""

from __future__ import annotations


class ForecastingError(Exception):
    """The root: whatever the library refuses."""


class SeriesError(ForecastingError):
    """The data cannot be a series."""


class DisorderedTimes(SeriesError):
    """A time is before the one ahead of it."""


class DuplicateTime(SeriesError):
    """Two samples of one time."""


class NegativeCount(SeriesError):
    """A load below zero."""


class InfiniteValue(SeriesError):
    """A load or a time that is infinite, or a time that is not a number."""


class HistoryTooShort(ForecastingError):
    """Fewer observations than the model needs."""


class BadSetting(ForecastingError):
    """An argument outside of what is allowed."""
