"""Errors in OpenAI's shape, for whatever goes wrong under a handler: a sentence, never a trace."""

from __future__ import annotations

import logging
from typing import Final

import orjson
from aiohttp import ClientConnectionResetError, web

from crds.contract import HEADER_DRAINING, HEADER_ENGINE_ENDED
from worker_image.errors import EngineEnded, EngineError, RequestError

log = logging.getLogger(__name__)

CLIENT_LEFT: Final = 499


class DrainingError(Exception):
    """This worker takes no new requests; another one will."""


class LoadingError(Exception):
    """The model is still being loaded; the same worker will answer soon."""


_TYPES: Final = {404: "not_found_error", 413: "invalid_request_error", 503: "service_unavailable_error"}


def error_body(message: str, status: int, param: str | None = None, code: str | None = None) -> bytes:
    fallback = "invalid_request_error" if status < 500 else "internal_server_error"
    error = {"message": message, "type": _TYPES.get(status, fallback), "param": param, "code": code}
    return orjson.dumps({"error": error})


def error_answer(
    message: str, status: int, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    body = error_body(message, status, param, code)
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def answer_for(error: Exception) -> web.Response:
    """The answer to a request that ended in `error`, before its first byte was sent."""
    match error:
        case RequestError():
            headers = {"Retry-After": "1"} if error.status == 503 else None
            return error_answer(_sentence(str(error)), error.status, error.param, error.code, headers)
        case DrainingError():
            message = "This worker is draining and did not start the request; send it to another."
            return error_answer(message, 503, code="draining", headers={HEADER_DRAINING: "true", "Retry-After": "1"})
        case LoadingError():
            message = "The model is still being loaded; try again in a moment."
            return error_answer(message, 503, code="model_loading", headers={"Retry-After": "1"})
        case EngineEnded():
            headers = {HEADER_ENGINE_ENDED: "true"}
            return error_answer(_sentence(str(error)), 500, code="engine_failed", headers=headers)
        case EngineError():
            return error_answer(_sentence(str(error)), 500, code="engine_failed")
        case web.HTTPRequestEntityTooLarge():
            return error_answer("The request body is larger than this worker accepts.", 413)
        case ClientConnectionResetError():
            return error_answer("The client has left.", CLIENT_LEFT)  # which nobody reads
        case web.HTTPException():
            return error_answer(f"{error.reason or 'Not found'}.", error.status)
    log.error("a request failed unexpectedly", exc_info=error)
    return error_answer("An internal error; the worker's log has the details.", 500)


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:]
