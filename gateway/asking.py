"""One question to a worker of one revision, past the traffic split: warms a new revision and compares its answers.

Only the operator asks so, a few times in a rollout, through the admin port. Never counted, never retried.
"""

from __future__ import annotations

import secrets
from typing import Final

import aiohttp

from gateway.catalog import Service

QUESTION_BYTES: Final = 16 * 1024
ANSWER_BYTES: Final = 256 * 1024
TIMEOUT_S: Final = 30.0
_PATH: Final = "/v1/completions"


class NotAnswered(Exception):
    """No worker of this revision answered; says why."""


async def ask(service: Service, revision: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer of one of its workers, any of those that are ready.

    Raises:
        NotAnswered: none is ready, or the chosen one did not answer in time.
    """
    ready = [one for one in service.endpoints if one.revision == revision and one.ready and not one.terminating]
    if not ready:
        raise NotAnswered(f"No worker of revision '{revision}' of '{service.key}' is ready.")
    endpoint = secrets.choice(ready)
    headers = {"content-type": "application/json"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session,
            session.post(f"http://{endpoint.where}{_PATH}", data=body, headers=headers) as response,
        ):
            said = b""
            while len(said) <= ANSWER_BYTES and (piece := await response.content.readany()):
                said += piece
    except (TimeoutError, aiohttp.ClientError) as error:
        raise NotAnswered(f"Worker '{endpoint.pod}' did not answer: {type(error).__name__}.") from error
    if len(said) > ANSWER_BYTES:
        raise NotAnswered(f"Worker '{endpoint.pod}' answered with more than {ANSWER_BYTES} bytes.")
    return response.status, said
