"""What the gateway says of a stream beside its body: what to call it, how to draw, and where it was begun."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from crds.contract import HEADER_CONTINUE, HEADER_STREAM
from worker_image.errors import RequestError

MAX_SEED: Final = (1 << 64) - 1
"""As of `worker_image.engine.noise`, which imports torch."""
_TICKET: Final = re.compile(r"([0-9]{1,20}) ([0-9A-Za-z]{1,64}) ([0-9]{1,10})")
_CONTINUE: Final = re.compile(r"([0-9a-f]{1,64}) ([0-9]{1,9})")


@dataclass(frozen=True)
class Ticket:
    """What the gateway has chosen for a stream, the same on every worker."""

    seed: int
    """For a request that names none. 0 to 2**64 - 1."""
    id: str
    created: int


def ticket_in(headers: Mapping[str, str]) -> Ticket | None:
    """None where no journal is asked for. Raises RequestError."""
    text = headers.get(HEADER_STREAM)
    if text is None:
        return None
    found = _TICKET.fullmatch(text)
    if found is None or int(found[1]) > MAX_SEED:
        raise RequestError(f"header '{HEADER_STREAM}' is '{text[:100]}'; it is '<seed> <id> <created>'.")
    return Ticket(int(found[1]), found[2], int(found[3]))


def continued_in(headers: Mapping[str, str], body: bytes, fingerprint: str) -> tuple[bytes, bytes | None]:
    """The original body, and the journal of a request that another worker has begun.

    Raises RequestError: 409 where that worker gives other answers than this one.
    """
    text = headers.get(HEADER_CONTINUE)
    if text is None:
        return body, None
    found = _CONTINUE.fullmatch(text)
    if found is None or int(found[2]) > len(body):
        raise RequestError(
            f"header '{HEADER_CONTINUE}' is '{text[:100]}'; it is '<fingerprint> <bytes of the original body>', "
            f"and the body has {len(body)} bytes."
        )
    if HEADER_STREAM not in headers:
        raise RequestError(f"header '{HEADER_CONTINUE}' needs '{HEADER_STREAM}' beside it.")
    if found[1] != fingerprint:
        raise RequestError(
            f"the answer was begun by a worker with fingerprint {found[1]}, this one has {fingerprint}: it would go on "
            "with another text. Send it to a worker of the same revision.",
            code="fingerprint_mismatch", status=409,
        )  # fmt: skip
    size = int(found[2])
    return body[:size], body[size:]
