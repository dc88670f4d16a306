"""Chat completions of a gateway, as a stream of text. Nothing is kept, and the key goes to the URL named alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from cli.errors import CliError
from cli.http import cause
from crds.contract import HEADER_FALLBACK

Json = dict[str, Any]

CONNECT_S: Final = 10.0
SILENCE_S: Final = 330.0
"""A gateway lets requests of a sleeping service wait for five minutes."""


@dataclass(frozen=True, slots=True)
class Model:
    """What is asked, where, and as whom. url: with its `/v1`."""

    url: str
    key: str
    name: str
    max_tokens: int | None


def answer_of(model: Model, messages: Sequence[Json], note: Callable[[str], None]) -> Iterator[str]:
    """The answer, piece by piece. `note` hears what is beside it: a fallback, an answer that was cut off.

    Raises:
        CliError: nobody answers, or the answer is an error or breaks off.
    """
    body: Json = {"model": model.name, "messages": list(messages), "stream": True}
    if model.max_tokens is not None:
        body["max_tokens"] = model.max_tokens
    try:
        with _session(model).post(
            f"{model.url.rstrip('/')}/chat/completions",
            json=body,
            stream=True,
            timeout=(CONNECT_S, SILENCE_S),
            allow_redirects=False,
        ) as response:
            if response.status_code != 200:
                raise CliError(_refusal(response))
            if response.headers.get(HEADER_FALLBACK):
                note(f"Answered by a fallback: {response.headers[HEADER_FALLBACK]}")
            yield from _pieces(response.iter_lines(), note)
    except (requests.RequestException, UnicodeError) as error:
        raise CliError(f"{model.url} does not answer: {cause(error)}. Check --url.") from error


def _session(model: Model) -> requests.Session:
    """No proxy between this machine and itself, and no other login than the key (a .netrc would go first)."""
    session = requests.Session()
    session.trust_env = urlsplit(model.url).hostname not in ("127.0.0.1", "localhost", "::1")
    session.auth = lambda request: _signed(request, model.key)
    return session


def _signed(request: requests.PreparedRequest, key: str) -> requests.PreparedRequest:
    request.headers["Authorization"] = f"Bearer {key}"
    return request


def _refusal(response: requests.Response) -> str:
    try:
        said = response.raw.read(10_000, decode_content=True).decode("utf-8", "replace")
    except HTTPError:  # The status says enough where the rest broke off.
        said = ""
    try:
        message = str(json.loads(said)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = said[:200] or "nothing more was said"
    wait = response.headers.get("Retry-After")
    return clean(f"The gateway answered {response.status_code}: {message}{f' Try again in {wait} s.' if wait else ''}")


def _pieces(lines: Iterator[bytes], note: Callable[[str], None]) -> Iterator[str]:
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        event = _event(data)
        if "error" in event:
            said = event["error"]
            raise CliError(clean(f"The answer broke off: {said.get('message') if isinstance(said, dict) else said}"))
        for choice in event.get("choices") or []:
            yield clean((choice.get("delta") or {}).get("content") or "")
            if choice.get("finish_reason") == "length":
                note("The answer was cut off at the most tokens; --max-tokens allows more.")
    raise CliError("The answer broke off: the stream ended without its end mark. Ask again.")


def _event(data: bytes) -> Json:
    try:
        event = json.loads(data)
    except ValueError as error:
        raise CliError(f"The gateway sent no JSON: {data[:80]!r}. Is --url an OpenAI API?") from error
    return event if isinstance(event, dict) else {}


def clean(text: str) -> str:
    """Without control characters: what a model writes must not steer a terminal."""
    return "".join(each for each in text if each in "\n\t" or each.isprintable() or each == "\u200d")
