"""What the gateway itself can answer that is not success, in the shape that OpenAI's clients read.

    GatewayError
    ├── BadRequest            400: the body is not what the API takes
    │   ├── AmbiguousModel    400: two of the tenant's namespaces serve the name
    │   └── TooLarge          400: more tokens than the Tenant's limit has in a minute
    ├── Unauthenticated       401: no key, or one that is not valid
    ├── UnknownModel          404: nothing of this name that the tenant may see
    ├── UnknownRoute          404: everything that is not served
    ├── WrongMethod           405
    ├── WrongEncoding         415: a compressed body
    ├── RateLimited           429: a limit of the Tenant
    ├── Starting              503: the catalog is not there yet, so no key can be judged
    ├── Overloaded            503: more requests than the gateway may hold
    ├── Shed                  503: the service is full, and waiting would be too long
    ├── NoEndpoint            503: the service has no worker that is ready
    ├── UpstreamFailed        502: workers failed, and retrying did not help
    └── DeadlineExceeded      504
    SettingsError             flags or a file that the gateway does not start with

A message never holds a key, a prompt, or the text of an exception.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

import orjson

from gateway.http1.limits import Problem
from gateway.http1.messages import Answer


class Degrades(Enum):
    """Why a request leaves its service for a fallback. The values are metric labels and told to clients."""

    NO_ENDPOINT = "no_endpoint"
    OVERLOADED = "overloaded"


class SettingsError(Exception):
    """Configuration that the gateway refuses to start with."""


class GatewayError(Exception):
    """Root of everything that becomes an answer to the client."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    degrades: ClassVar[Degrades | None] = None
    """A fallback of the service may do better."""

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        """More to tell the client than the body."""


class BadRequest(GatewayError):
    status = 400
    type = "invalid_request_error"


class AmbiguousModel(BadRequest):
    code = "model_ambiguous"


class Unauthenticated(GatewayError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class UnknownModel(GatewayError):
    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class UnknownRoute(GatewayError):
    status = 404
    type = "invalid_request_error"
    code = "unknown_url"


class WrongMethod(GatewayError):
    status = 405
    type = "invalid_request_error"


class WrongEncoding(GatewayError):
    status = 415
    type = "invalid_request_error"


class TooLarge(BadRequest):
    code = "tokens_exceed_limit"


class RateLimited(GatewayError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class Shed(GatewayError):
    status = 503
    code = "overloaded"
    degrades = Degrades.OVERLOADED


class UpstreamFailed(GatewayError):
    status = 502
    code = "upstream_failed"
    degrades = Degrades.NO_ENDPOINT


class Starting(GatewayError):
    status = 503
    code = "starting"


class Overloaded(GatewayError):
    status = 503
    code = "overloaded"


class NoEndpoint(GatewayError):
    status = 503
    code = "no_endpoint"
    degrades = Degrades.NO_ENDPOINT


class DeadlineExceeded(GatewayError):
    status = 504
    code = "deadline_exceeded"


def error_body(message: str, type_: str, code: str | None = None, param: str | None = None) -> bytes:
    body = orjson.dumps({"error": {"message": message, "type": type_, "param": param, "code": code}})
    return bytes(
        memoryview(body)
    )  # a copy: the original keeps 4 KiB, and thousands may wait for a client that pipelines


def answer_for(error: GatewayError, request_id: bytes) -> Answer:
    """The error as a response."""
    headers: tuple[tuple[bytes, bytes], ...] = ((b"x-request-id", request_id),)
    if error.retry_after_s is not None:
        headers += ((b"retry-after", b"%d" % error.retry_after_s),)
    headers += error.headers
    if isinstance(error, Unauthenticated):
        headers += ((b"www-authenticate", b"Bearer"),)
    return Answer(error.status, error_body(error.message, error.type, error.code, error.param), headers=headers)


def answer_for_problem(problem: Problem) -> Answer:
    """A refusal by the protocol layer as a response."""
    kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    headers = ((b"retry-after", b"1"),) if problem.status == 503 else ()
    return Answer(problem.status, error_body(problem.sentence, kind, problem.name.lower()), headers=headers)


def stream_event(error: GatewayError) -> bytes:
    """The error as the last event of a stream that has begun."""
    return b"data: %b\n\n" % error_body(error.message, error.type, error.code, error.param)
