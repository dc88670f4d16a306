"""Shares of traffic: what the operator tells gateways while two revisions of a service are compared."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crds.fields import Part


class TrafficShare(Part):
    """What one revision gets. The weights of all entries add up to 100."""

    revision: Annotated[str, Field(description="Hash of everything that makes a worker.", max_length=63)]
    weight: Annotated[int, Field(description="Share of sessions, in percent.", ge=0, le=100)]
    mirror: Annotated[
        int | None,
        Field(
            description="Share of requests, in percent, of which it gets a copy whose answer nobody sees.", ge=0, le=100
        ),
    ] = None
