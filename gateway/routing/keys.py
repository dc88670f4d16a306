"""What makes requests belong together: their session, their user, the beginning of their prompt. Pure.

Keys are hashes under the tenant's salt, so equal prompts of two tenants are different keys (unless they share a cache
domain), and nothing of a prompt is kept. They decide where a request goes, never whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from gateway.http1.messages import Request

HEADER_SESSION = b"x-foretide-session"
PREFIX_CHARS = 1024
"""Of the prompt's beginning: what a system prompt has in common with itself, and two of them seldom with each other."""
_SHORT_CHARS = 256
"""A first message shorter than this (most say "You are a helpful assistant.") is no prefix without the next."""
SESSION_BYTES = 256


@dataclass(frozen=True, slots=True)
class Keys:
    """64-bit hashes; None for what a request does not have."""

    session: int | None = None
    prefix: int | None = None

    @property
    def sticky(self) -> int | None:
        """What keeps a request on its revision."""
        return self.prefix if self.session is None else self.session


NO_KEYS = Keys()


class Marks(NamedTuple):
    """What of a body its keys are made of; empty for what it does not have."""

    user: bytes = b""
    beginning: bytes = b""


def marks_of(body: Mapping[str, Any]) -> Marks:
    user = body.get("user")
    return Marks(user[:SESSION_BYTES].encode("utf-8", "replace") if isinstance(user, str) else b"", _beginning(body))


def keys_of(request: Request, marks: Marks, salt: bytes) -> Keys:
    """salt: at most 64 bytes."""
    session = request.headers.get(HEADER_SESSION) or (marks.user and b"user:" + marks.user)
    return Keys(
        _hash(b"session", salt, session[:SESSION_BYTES]) if session else None,
        _hash(b"prefix", salt, marks.beginning) if marks.beginning else None,
    )


def _hash(what: bytes, salt: bytes, value: bytes) -> int:
    return int.from_bytes(blake2b(value, digest_size=8, key=salt, person=what).digest())


def _beginning(body: Mapping[str, Any]) -> bytes:
    """The first message (a conversation grows at its other end), with the second where the first says little."""
    messages = body.get("messages")
    if isinstance(messages, list):
        text = ""
        for message in messages[:2]:
            text += _text(message)
            if len(text) >= _SHORT_CHARS:
                break
        return text[:PREFIX_CHARS].encode("utf-8", "replace")
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt:
        tokens = prompt[0] if isinstance(prompt[0], list) else prompt
        prompt = prompt[0] if isinstance(prompt[0], str) else _ids(tokens[: PREFIX_CHARS // 4])
    return prompt[:PREFIX_CHARS].encode("utf-8", "replace") if isinstance(prompt, str) else b""


def _ids(tokens: list[Any]) -> str:
    """What is no token id is left out: it may be nested deeper than Python writes."""
    return ",".join([str(one) for one in tokens if isinstance(one, int)])


def _text(message: Any) -> str:
    """Of one message, whose content is a text or a list of parts. Other shapes are for the worker to refuse."""
    if not isinstance(message, dict):
        return ""
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        role = ""
    if isinstance(content, str):
        return f"{role}:{content[:PREFIX_CHARS]}\n"
    if not isinstance(content, list):
        return ""
    texts = [one["text"] for one in content[:4] if isinstance(one, dict) and isinstance(one.get("text"), str)]
    return f"{role}:{''.join(texts)[:PREFIX_CHARS]}\n"
