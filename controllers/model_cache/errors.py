"""Why there is no copy yet. Each message goes to `kubectl describe model`: object, found, allowed, next step.

CacheError
├── SettingsError      a flag says something impossible
└── FetchError
    ├── Interrupted    the source stopped answering; what is on disk is kept and continued
    ├── TooSlow        the source gives next to nothing; others have their turn, then it is continued
    ├── SourceRefused  the source says no, or we must not ask it; another try needs a person
    ├── WrongContent   digest, size or format is not what it should be; the bytes are deleted
    └── NoRoom         the disk or the cache is full
"""

from __future__ import annotations


class CacheError(Exception):
    """Root of everything raised by this package."""


class SettingsError(CacheError):
    """A flag says something impossible."""


class FetchError(CacheError):
    """A copy could not be made. `patience_s` is the first wait before another try; it doubles up to `most_s`."""

    patience_s = 5.0
    most_s = 300.0


class Interrupted(FetchError):
    """The connection broke or the server failed; the next try continues where this one ended."""

    patience_s = 1.0
    most_s = 60.0


class TooSlow(FetchError):
    """The source gives less than anybody would wait for."""

    patience_s = 60.0
    most_s = 600.0


class SourceRefused(FetchError):
    """No such file, no permission, or an address that must not be asked."""

    patience_s = 15.0
    most_s = 600.0


class WrongContent(FetchError):
    """The bytes are not the weights that the Model names."""

    patience_s = 60.0
    most_s = 3600.0


class NoRoom(FetchError):
    """The node's disk or the cache is full."""

    patience_s = 15.0
    most_s = 300.0
