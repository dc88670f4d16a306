"""Every exception the worker raises on purpose, so that callers can tell a sentence from a defect.

    WorkerError
    ├── CheckpointError     the files on disk cannot be served; the process ends with code 2
    ├── SettingsError       the flags contradict each other or the machine; the process ends with code 2
    ├── RequestError        a client asked for something impossible; becomes a 4xx answer
    └── EngineError         the engine process failed or is gone; becomes a 5xx answer
        └── LeavingError    this worker's time is up; a stream that has a journal goes on elsewhere

The message of each is one sentence for a person: what was found, in which object, what is allowed.
"""

from __future__ import annotations


class WorkerError(Exception):
    """Root of the tree."""


class CheckpointError(WorkerError):
    """The checkpoint is damaged, is not the one asked for, or needs something this worker does not have."""


class SettingsError(WorkerError):
    """The flags cannot be honoured together or on this machine."""


class RequestError(WorkerError):
    """A request that must be changed before it can be answered."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status


class EngineError(WorkerError):
    """The engine cannot answer: it failed, ended, or this worker is being stopped."""


class EngineEnded(EngineError):
    """Its process is gone; this worker is at its end, and another one may answer."""


class LeavingError(EngineError):
    """The time of a drain is up before the answer was complete."""
