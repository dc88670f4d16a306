"""A Tenant's limits applied to one request: reserve, refuse with the limit named, settle what it really took.

Pure but for the accounts that it spends from. Refuses in the words of the Tenant's own fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from gateway.admission.ledger import Holdings
from gateway.errors import RateLimited, TooLarge

Headers = tuple[tuple[bytes, bytes], ...]
RETRY_AFTER_MOST_S: Final = 3600
_LINES: Final = b"x-ratelimit-limit-%b: %%d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%.3fs\r\n"
_REQUESTS: Final = _LINES % ((b"requests",) * 3)
_TOKENS: Final = _LINES % ((b"tokens",) * 3)


@dataclass(frozen=True, slots=True)
class Lack:
    """Which limit stands in the way; `elsewhere` when other gateways hold enough to help."""

    limit: str
    elsewhere: bool


def reserve(held: Holdings, tokens: float, now_s: float) -> Lack | None:
    """Takes all of it, or nothing and says what lacks."""
    slots, requests, spent = held.open, held.requests, held.tokens
    if slots is not None and not slots.take():
        return Lack("concurrency", slots.open < slots.limit)
    if requests is not None and not requests.take(1.0, now_s):
        _close(held)
        return Lack("requests", requests.left() >= 1.0)
    if spent is not None and not spent.take(tokens, now_s):
        _close(held)
        if requests is not None:
            requests.give_back(1.0)
        return Lack("tokens", spent.left() >= min(tokens, spent.portion))
    return None


def check_size(held: Holdings, tenant: str, tokens: float) -> None:
    """
    Raises:
        TooLarge: no amount of waiting would help.
    """
    most = held.limits.tokens_per_minute
    if most is not None and tokens > most:
        raise TooLarge(
            f"This request may take {tokens:.0f} tokens, and Tenant '{tenant}' has {most} a minute "
            "(spec.limits.tokensPerMinute). Lower max_tokens or n, or shorten the prompt.",
            param="max_tokens",
        )


def cancel(held: Holdings, tokens: float) -> None:
    """It was not served at all: everything is given back."""
    _close(held)
    if held.requests is not None:
        held.requests.give_back(1.0)
    if held.tokens is not None:
        held.tokens.give_back(tokens)


def settle(held: Holdings, reserved: float, used: float) -> None:
    """It has ended: the request counts, of its tokens those it took."""
    _close(held)
    if held.tokens is None:
        return
    if used <= reserved:
        held.tokens.give_back(reserved - used)
    else:
        held.tokens.charge(used - reserved)


def _close(held: Holdings) -> None:
    if held.open is not None:
        held.open.give_back()


# --- words ------------------------------------------------------------------------------------------------------------


def refused(held: Holdings, tenant: str, lack: Lack, tokens: float) -> RateLimited:
    """The limit, its value, what is left, and what to do."""
    limits = held.limits
    wait_s = 1.0
    if lack.limit == "concurrency":
        text = (
            f"Tenant '{tenant}' has its {limits.concurrency} requests open at the same time "
            "(spec.limits.concurrency). Wait for one to end,"
        )
    elif lack.limit == "requests":
        assert held.requests is not None
        wait_s = held.requests.wait_s(1.0)
        text = (
            f"Tenant '{tenant}' is at its limit of {limits.requests_per_minute} requests a minute "
            f"(spec.limits.requestsPerMinute). Try again in {_seconds(wait_s)} s,"
        )
    else:
        assert held.tokens is not None
        wait_s = held.tokens.wait_s(min(tokens, held.tokens.portion))
        text = (
            f"Tenant '{tenant}' is at its limit of {limits.tokens_per_minute} tokens a minute "
            f"(spec.limits.tokensPerMinute): this request may take {tokens:.0f}, and {held.tokens.left():.0f} are left."
            f" Try again in {_seconds(wait_s)} s, lower max_tokens,"
        )
    error = RateLimited(f"{text} or ask the owner of the Tenant for more.", retry_after_s=_seconds(wait_s))
    error.headers = headers(held)
    return error


def headers(held: Holdings) -> Headers:
    """As OpenAI's clients know them; `remaining` is what can be had at once."""
    lines = rendered(held).split(b"\r\n")[:-1]
    return tuple((name, value) for name, _, value in (line.partition(b": ") for line in lines))


def rendered(held: Holdings) -> bytes:
    """The same, ready to be sent."""
    block = b""
    if (account := held.requests) is not None:
        block = _REQUESTS % (account.per_minute, account.left(), account.wait_s(account.depth))
    if (account := held.tokens) is not None:
        block += _TOKENS % (account.per_minute, account.left(), account.wait_s(account.depth))
    return block


def _seconds(wait_s: float) -> int:
    return max(1, min(RETRY_AFTER_MOST_S, math.ceil(wait_s)))
