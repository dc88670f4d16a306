"""Which class a request has: its service's, at most its Tenant's highest, and lower where the client asks. Pure."""

from __future__ import annotations

from typing import Final

from gateway.admission.terms import Priority
from gateway.errors import BadRequest

HEADER_PRIORITY: Final = b"x-foretide-priority"
DEFAULT: Final = Priority.P2
"""Of a service without an SLA."""
_BY_NAME: Final = {one.name.encode(): one for one in Priority}


def class_of(service: Priority | None, highest: Priority, asked: bytes | None) -> Priority:
    """
    Raises:
        BadRequest: the client asks for something that is no class.
    """
    priority = DEFAULT if service is None else service
    if highest > priority:
        priority = highest
    if asked is None:
        return priority
    wanted = _BY_NAME.get(asked.strip().upper())
    if wanted is None:
        raise BadRequest("The header `x-foretide-priority` must be P0, P1, P2 or P3; it can only lower the class.")
    return max(wanted, priority)
