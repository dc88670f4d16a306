"""How a log line of any of our processes looks: one JSON object, the same names in all of them (docs/logs.md).

Here because gateway, worker, operator and agents share no other package. Decides nothing about what is worth saying.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

import orjson

FIELDS: Final[Mapping[str, str]] = {
    "time": "When, in UTC, with milliseconds: `2026-01-01T06:00:00.000+00:00`.",
    "level": "`debug`, `info`, `warning`, `error` or `critical`; lines of requests have none.",
    "logger": "The module that speaks.",
    "message": "The sentence.",
    "exception": "The traceback, its lines joined by `\\n`.",
    "request_id": "Of the request that the line is about: what the client got in `x-request-id`.",
    "trace_id": "Of that request's trace, 32 hexadecimal digits, where it is traced.",
    "kind": "Kind of the object that was reconciled.",
    "namespace": "Namespace of the object or service that the line is about.",
    "object": "Name of that object.",
    "service": "Name of the InferenceService that the line is about.",
    "revision": "Revision of the worker that the line is about.",
    "endpoint": "Worker that the line is about: its address, or its pod.",
    "tenant": "Tenant whose request it was.",
}
"""Every name that two components may use; what only one of them says (`ttft_s`) is in that one's page."""
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_about: ContextVar[Mapping[str, str]] = ContextVar("about", default=MappingProxyType({}))


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Every line that is logged within has these fields, in tasks and threads started within it as well."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def moment(unix_s: float) -> str:
    """A time as log lines have it."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")


class JsonFormatter(logging.Formatter):
    """time, level, logger, message; what `about` and `extra` say; the exception. Never more than one line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": moment(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about.get(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        # A request's own bytes may be no UTF-8, and a log line must not be the second failure.
        return orjson.dumps(_clean(line), default=str).decode()


def _clean(line: Mapping[str, object]) -> dict[str, object]:
    return {
        key: value.encode(errors="replace").decode() if isinstance(value, str) else value for key, value in line.items()
    }
