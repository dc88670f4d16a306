"""The seam between this package and its users: what a client does, as a Protocol, and the values it returns.

Reconcilers, informers and recorders take an `Api`; production hands them `kube.client.Client`, unit tests
`tests.fakes.FakeClient`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol

from kube.errors import NotFound
from kube.resources import Object, Resource

Propagation = Literal["Background", "Foreground", "Orphan"]
Subresource = Literal["status", "scale"]


class EventKind(Enum):
    """What a watch event says. BOOKMARK carries no object, only a newer resourceVersion to resume from."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event of a watch; `resource_version` is where to resume after it."""

    kind: EventKind
    obj: Object
    resource_version: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. Every page of one list carries the same `resource_version`."""

    items: list[Object]
    resource_version: str


class Api(Protocol):
    """The verbs. Every method raises `kube.errors.KubeError`; `namespace` is None for cluster-scoped resources."""

    writes: int
    """How many writing requests were sent so far: applies, creates, patches and deletes."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """One object. Raises NotFound."""
        ...

    def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = 500,
    ) -> AsyncGenerator[Page, None]:
        """A list, page by page, so that no more than one page of whole objects is ever held."""
        ...

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> list[Object]:
        """All objects, whole, in one list. For small collections; informers use `pages`."""
        ...

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        inactivity_timeout_s: float = 20.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events after `resource_version`, until the server ends the stream or it is silent for the timeout.

        The server is asked to end it sooner, for it says then how far it was. The first is a bookmark at
        `resource_version` itself: the server has opened the stream.
        Raises Gone when the version is too old, Unreachable when the stream breaks.
        """
        ...

    async def apply(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        *,
        field_manager: str,
        force: bool = True,
        subresource: Subresource | None = None,
    ) -> Object:
        """Server-side apply; returns the object as stored. Raises Conflict when not forced and others own fields."""
        ...

    async def create(self, resource: Resource, obj: Mapping[str, Any]) -> Object:
        """Raises AlreadyExists."""
        ...

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any],
        *,
        subresource: Subresource | None = None,
    ) -> Object:
        """RFC 7386: null removes. Put `metadata.resourceVersion` (or `uid`) into it to make it conditional."""
        ...

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        propagation: Propagation = "Background",
        uid: str | None = None,
        grace_period_s: int | None = None,
    ) -> None:
        """Delete it if it has this uid (Conflict otherwise). An object that is already gone is success."""
        ...


async def find(client: Api, resource: Resource, namespace: str | None, name: str) -> Object | None:
    """One object as the API server has it now; None where it has none."""
    try:
        return await client.get(resource, namespace, name)
    except NotFound:
        return None
