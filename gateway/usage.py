"""How many tokens an answer took: what the worker says, else what its bytes tell. Pure; keeps no text.

A whole answer, and a stream whose client asked for it, carry `usage`. Any other stream is counted by its events, of
which our workers send one a token, and its prompt by the worker's header or, without one, by its length.
"""

from __future__ import annotations

import re
from typing import NamedTuple

BYTES_PER_TOKEN = 4
"""Of English and code with today's vocabularies; only where the worker says nothing."""
_PROMPT = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,9})')
_COMPLETION = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,9})')
TAIL_BYTES = 1024
"""`usage` stands at the end, and an answer may be megabytes."""


class Usage(NamedTuple):
    """Tokens in and out."""

    prompt: int
    completion: int


def usage_in(data: bytes) -> Usage | None:
    """What the last `usage` of an answer, or of a stream's event, says; None without one."""
    at = data.rfind(b'"usage"', max(0, len(data) - TAIL_BYTES))
    if at < 0:
        return None
    prompt, completion = _PROMPT.search(data, at), _COMPLETION.search(data, at)
    return Usage(int(prompt[1]), int(completion[1])) if prompt and completion else None


def told_tokens(header: bytes) -> int | None:
    """The number in a worker's header; None where it is none."""
    return int(header) if header.isdigit() and len(header) < 10 else None


def events_in(data: bytes) -> int:
    """Server-sent events that begin in `data`, which holds whole ones."""
    return data.count(b"\ndata:") + data.startswith(b"data:")


def estimated(prompt_tokens: int | None, body_bytes: int, events: int) -> Usage:
    """Where no `usage` came: one token an event, less the last two, which end the stream."""
    prompt = body_bytes // BYTES_PER_TOKEN if prompt_tokens is None else prompt_tokens
    return Usage(prompt, max(0, events - 2))
