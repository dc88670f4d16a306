"""What the gateway reads of a request: route, model, stream, id. The rest of the body is none of its business.

Pure. Refuses by default: what is not listed here is not served, and no header passes that is not listed here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from random import getrandbits
from typing import Any
from urllib.parse import unquote

import orjson

from gateway.errors import BadRequest, UnknownRoute, WrongEncoding, WrongMethod
from gateway.http1.messages import Request
from gateway.routing.keys import Marks, marks_of

OUTPUT_TOKENS_ASSUMED = 512
"""Where a request does not say how long its answer may be."""
OUTPUT_TOKENS_RESERVED = 8192
"""At most this many are reserved of a minute's limit; what an answer takes beyond is charged when it ends."""
CHOICES_RESERVED = 8
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,128}")
_FORWARDED = (b"traceparent", b"tracestate")
_MODELS = b"/v1/models"
_ORIGIN = re.compile(rb"^https?://[^/?#]*", re.IGNORECASE)
"""Which a client that takes us for a proxy puts before the path (RFC 9112, 3.2.2)."""
_SECONDS = re.compile(rb"[0-9]{1,7}(\.[0-9]{1,6})?")
HEADER_TIMEOUT = b"x-request-timeout"
"""Seconds after which the client has no use for the answer; bounded by the gateway's own deadline."""
HEADER_EXPLAIN = b"x-foretide-explain"
"""`true`: the answer tells in `x-foretide-decision` why its worker was chosen."""
HEADER_DECISION = b"x-foretide-decision"


class Route(Enum):
    GENERATE = auto()
    MODELS = auto()
    MODEL = auto()


_POSTS = {b"/v1/chat/completions": Route.GENERATE, b"/v1/completions": Route.GENERATE}


@dataclass(slots=True)
class Wanted:
    """What a body asks for, and no more of it: parsed, it is twenty times its size. Not frozen, since one is made for
    every request."""

    model: str
    stream: bool
    output_tokens: int
    """That all its choices may take, as far as that is bounded."""
    choices: int
    """Answers to the same prompt, as many as are reserved for."""
    marks: Marks
    """For a service that keeps together what belongs together."""


def route_of(request: Request) -> tuple[Route, bytes]:
    """The route, and the path without a query.

    Raises:
        UnknownRoute: the path is not served.
        WrongMethod: it is, by another method.
    """
    path = request.target.partition(b"?")[0]
    if path[:1] != b"/":
        path = _ORIGIN.sub(b"", path)
    route = _POSTS.get(path)
    if route is not None:
        return route, _by(b"POST", request, path)
    if path == _MODELS:
        return Route.MODELS, _by(b"GET", request, path)
    if path.startswith(_MODELS + b"/") and len(path) > len(_MODELS) + 1:
        return Route.MODEL, _by(b"GET", request, path)
    raise UnknownRoute(
        "There is nothing at this URL. Served are POST /v1/chat/completions, POST /v1/completions, GET /v1/models "
        "and GET /v1/models/{model}."
    )


def _by(method: bytes, request: Request, path: bytes) -> bytes:
    if request.method != method:
        error = WrongMethod(f"This URL takes {method.decode()} only.")
        error.headers = ((b"allow", method),)
        raise error
    return path


def model_in(path: bytes) -> str:
    """The model that `GET /v1/models/{model}` names; a slash in it may be escaped or not."""
    return unquote(path[len(_MODELS) + 1 :].decode("latin-1"))


def wanted_by(request: Request) -> Wanted:
    """Reads `model`, `stream`, how long the answer may be and what it belongs together with, nothing else.

    Raises:
        WrongEncoding, BadRequest: with what is wrong.
    """
    encoding = request.headers.get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise WrongEncoding("Send the body without content-encoding.")
    try:
        body: Any = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        raise BadRequest("The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise BadRequest("The request body must be a JSON object.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("You must provide a model parameter: the name of one of GET /v1/models.", param="model")
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("'stream' must be true or false.", param="stream")
    choices = _choices(body)
    return Wanted(model, stream is True, _output_tokens(body) * choices, choices, marks_of(body))


def timeout_s(request: Request, most_s: float) -> float:
    """How long the client wants to wait: the header's seconds, but never more than `most_s`.

    Raises:
        BadRequest: it is no number of seconds above 0.
    """
    given = request.headers.get(HEADER_TIMEOUT)
    if given is None:
        return most_s
    if not _SECONDS.fullmatch(given) or not (asked_s := float(given)) > 0.0:
        raise BadRequest(
            f"The header {HEADER_TIMEOUT.decode()} must be a number of seconds above 0, such as 30 or 2.5."
        )
    return min(asked_s, most_s)


def wants_explanation(request: Request) -> bool:
    given = request.headers.get(HEADER_EXPLAIN)
    return given is not None and given.lower() in (b"true", b"1")


def _output_tokens(body: dict[str, Any]) -> int:
    """A worker judges whether the values make sense; here nonsense counts as absent."""
    longest = body.get("max_completion_tokens")
    if longest is None:
        longest = body.get("max_tokens")
    if type(longest) is not int or longest < 1:
        longest = OUTPUT_TOKENS_ASSUMED
    elif longest > OUTPUT_TOKENS_RESERVED:
        longest = OUTPUT_TOKENS_RESERVED
    return longest


def _choices(body: dict[str, Any]) -> int:
    choices = body.get("n")
    return min(choices, CHOICES_RESERVED) if type(choices) is int and choices > 1 else 1


def request_id_of(request: Request) -> bytes:
    """The client's own id where it is well-formed, else a new one."""
    given = request.headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return b"req-%024x" % getrandbits(96)


def forwarded_headers(request: Request) -> bytes:
    """The rendered headers that reach a worker. Identity, cookies and everything unknown stay here."""
    headers = request.headers
    return b"".join([b"%b: %b\r\n" % (name, headers[name]) for name in _FORWARDED if name in headers])
