"""Everything the API server, or the way to it, can answer that is not success.

    KubeError
    ├── LoginFailed       no usable kubeconfig or service account
    ├── Fenced            this process may not write (leadership lost); the request was not sent
    ├── AnswerError       the server answered with an error status
    │   ├── Unauthorized  401
    │   ├── Forbidden     403
    │   ├── NotFound      404
    │   ├── Conflict      409 (also 412): someone else wrote first, or the name is taken
    │   │   └── AlreadyExists
    │   ├── Gone          410: the resourceVersion asked for is too old; list again
    │   ├── Invalid       422 or 400: the message says which fields
    │   ├── Throttled     429: `retry_after_s`
    │   └── Unavailable   5xx
    └── Unreachable       no answer: refused, reset, cut, timed out, or not JSON

A message says the verb, the object, the answer and the next step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import orjson


class KubeError(Exception):
    """Root of everything raised by this package."""


class LoginFailed(KubeError):
    """No way to the API server is configured, or what is configured cannot be read."""


class Fenced(KubeError):
    """A write was refused before it was sent, because this process no longer leads."""


class Unreachable(KubeError):
    """No usable answer came. Whether a write took effect is unknown: read before writing again."""


class AnswerError(KubeError):
    """The API server answered with an error. `status_code` and `reason` are its own words."""

    next_step: ClassVar[str] = "Look at the API server's log."

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        reason: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.reason = reason
        self.retry_after_s = retry_after_s


class Unauthorized(AnswerError):
    next_step = "The credential was refused; a new one is read at the next request."


class Forbidden(AnswerError):
    next_step = "Grant this verb to the service account (ClusterRole of the chart), or leave the object alone."


class NotFound(AnswerError):
    next_step = "It is gone or was never there; for a kind as a whole, install its CRD."


class Conflict(AnswerError):
    next_step = "Read the object again and decide anew."


class AlreadyExists(Conflict):
    next_step = "Read the existing object, or use server-side apply."


class Gone(AnswerError):
    next_step = "List again and watch from there."


class Invalid(AnswerError):
    next_step = "Correct the named fields."


class Throttled(AnswerError):
    next_step = "Wait and try again."


class Unavailable(AnswerError):
    next_step = "Try again; the write may or may not have taken effect."


_BY_STATUS: dict[int, type[AnswerError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    412: Conflict,
    422: Invalid,
    429: Throttled,
}


def error_from_response(
    verb: str, what: str, status_code: int, raw: bytes, retry_after: str | None = None
) -> AnswerError:
    """The error for an answer as it came: what stands between us and the server answers in words of its own."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = {"message": raw[:300].decode("utf-8", "replace").strip()}
    text = retry_after or ""
    return error_from_answer(verb, what, status_code, body, float(text) if text.isdecimal() else None)


def error_from_answer(
    verb: str, what: str, status_code: int, status: object, retry_after_s: float | None = None
) -> AnswerError:
    """The error for an answer; `status` is its body, of which no more is believed than fits a `Status` object."""
    body = _map(status)
    reason = str(body.get("reason") or "")
    kind = _BY_STATUS.get(status_code, Unavailable if status_code >= 500 else AnswerError)
    if kind is Conflict and reason == "AlreadyExists":
        kind = AlreadyExists
    found = str(body.get("message") or "no message").rstrip(".")
    asked = _map(body.get("details")).get("retryAfterSeconds")
    if retry_after_s is None and isinstance(asked, int | float):
        retry_after_s = float(asked)
    return kind(
        f"{verb} {what}: the API server answered {status_code} {reason or 'without a reason'}: {found}."
        f" {kind.next_step}",
        status_code=status_code,
        reason=reason,
        retry_after_s=retry_after_s,
    )


def _map(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}
