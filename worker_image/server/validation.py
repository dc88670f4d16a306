"""Bodies of requests → typed requests, or one sentence that names the first field that is wrong."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from worker_image.errors import RequestError

MOST_NAMED: Final = 1000
"""A megabyte of mistakes takes a hundred of memory to tell apart, which a client must not make us do."""


class Strict(BaseModel):
    """Base of every request. A field we do not have is refused by name, never silently ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


T = TypeVar("T", bound=Strict)


def parse_request(kind: type[T], body: bytes) -> T:
    """Raises RequestError: one sentence naming the first field that is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _sentence(error) from None


def _sentence(error: ValidationError) -> RequestError:
    if (n_wrong := error.error_count()) > MOST_NAMED:
        return RequestError(f"the body has {n_wrong} fields that are wrong or unknown; leave them out.")
    # Every branch of a union reports its own failure; the field, not the branch, is what the client knows.
    # A field we do not have comes first: it is often the misspelt name of one that is then reported as missing.
    found = error.errors(include_url=False, include_input=False)
    # Of a union, the branch whose type fits says more than the others, which only say that theirs does not.
    ranks = {"extra_forbidden": 0}
    first: Any = min(found, key=lambda each: ranks.get(each["type"], 2 if each["type"].endswith("_type") else 1))
    if first["type"] == "json_invalid":
        return RequestError(f"the body is no valid JSON: {first['msg'].removeprefix('Invalid JSON: ')}.")
    param = ".".join(_known_parts(first["loc"]))
    reason = first["msg"].removeprefix("Value error, ")
    if not param:
        return RequestError(f"{reason}.")
    match first["type"]:
        case "missing":
            message = f"field '{param}' is required."
        case "extra_forbidden":
            message = f"field '{param}' is not supported by this worker; remove it."
        case "literal_error":
            message = f"field '{param}' has a value this worker does not support; it may be {first['ctx']['expected']}."
        case _:
            message = f"field '{param}': {reason}."
    return RequestError(message, param=param)


def _known_parts(location: tuple[int | str, ...]) -> list[str]:
    """Drops pydantic's names of union branches ('constrained-str', 'list[…]') from an error's path."""
    return [str(part) for part in location if isinstance(part, int) or (part.isidentifier() and part not in _BRANCHES)]


_BRANCHES: Final = frozenset({"str", "int", "float", "bool", "list", "NamedToolChoice"})
