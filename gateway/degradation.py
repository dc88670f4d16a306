"""Where a request goes that its service cannot take: the fallbacks of the service, in their order, and no further.

The fallbacks of a fallback are not followed, so there is no circle to go round in. Never leaves a service for a limit
of the tenant: what a tenant may not ask of one service it may not ask of another. Pure but for its place on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from crds.contract import HEADER_FALLBACK
from gateway.catalog import Fallback, Service, ServiceKey
from gateway.errors import BadRequest, Degrades

_HEADER = HEADER_FALLBACK.encode()
_LIMITS = ("max_completion_tokens", "max_tokens")


class Road:
    """One request's way through a service and its fallbacks."""

    def __init__(self, service: Service, usable: Callable[[ServiceKey], bool]) -> None:
        self.key = service.key
        """Whose turn it is."""
        self.fallback: Fallback | None = None
        """None while that is the service itself."""
        self.reason: Degrades | None = None
        self._service = service
        self._usable = usable
        self._at = 0

    def leave(self, reason: Degrades) -> bool:
        """Goes on to the next fallback that has a healthy worker; False, and stays, where there is none."""
        own = self._service.key
        fallbacks = self._service.fallbacks
        for index in range(self._at, len(fallbacks)):
            one = fallbacks[index]
            # A shorter limit helps a service that is full, and not one without workers.
            if self._usable(one.service) and not (one.service == own and reason is Degrades.NO_ENDPOINT):
                self._at = index + 1
                self.key, self.fallback, self.reason = one.service, one, reason
                return True
        return False

    @property
    def told(self) -> bytes:
        """The rendered header for the client, empty while nothing was left."""
        if self.fallback is None or self.reason is None:
            return b""
        limit = b"" if self.fallback.max_tokens is None else b"; max_tokens=%d" % self.fallback.max_tokens
        return b"%b: %b; reason=%b%b\r\n" % (_HEADER, str(self.key).encode(), self.reason.value.encode(), limit)

    def body(self, asked: bytes) -> bytes:
        """The request's body as the service takes it whose turn it is. Raises BadRequest: it is nested too deep."""
        if self.fallback is None:
            return asked
        changed: dict[str, Any] = orjson.loads(asked)
        if self.key != self._service.key:
            changed["model"] = self.key.name
        if (most := self.fallback.max_tokens) is not None:
            name = next((one for one in _LIMITS if changed.get(one) is not None), "max_tokens")
            wanted = changed.get(name)
            # What is no number is for the worker to refuse, as it would have been without a fallback.
            if wanted is None or type(wanted) is int:
                changed[name] = most if wanted is None else min(wanted, most)
        try:
            return orjson.dumps(changed)
        except orjson.JSONEncodeError:
            # It reads deeper nesting than it writes.
            raise BadRequest("The request body is nested deeper than a fallback can be asked.") from None
