"""Times as objects have them: RFC 3339 in UTC, whole seconds. Formatting and reading only; nobody's clock."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(at_s: float) -> str:
    """Of a Unix time in seconds: `2026-01-31T12:00:00Z`."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unix_s(text: str) -> float:
    """Raises ValueError for what is no time."""
    return datetime.fromisoformat(text).timestamp()


def seconds_since(text: str | None, now_s: float) -> float:
    """0 when there is no such time."""
    return now_s - unix_s(text) if text else 0.0
