"""Operators with a mistake planted in them: what a campaign must find, or it proves nothing.

Each plant wraps code of ours inside the forked process before it begins, and is a mistake that mature operators made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from controllers.inference_service.write import Writer, Written
from kube.client import Client
from kube.errors import Unavailable, Unreachable
from kube.informer import Informer


def plant(name: str) -> None:
    """Nothing for an empty name. Raises KeyError for one that is not known."""
    if name:
        PLANTS[name]()


def remembers_in_the_status() -> None:
    """The status is written first, and the disruption budget only while there was none: right without a crash."""
    children, status = Writer.children, Writer.status

    async def planted(self: Writer, service: Any, seen: Any, plan: Any) -> Written:
        if plan.status is not None:
            if service.get("status"):
                left = tuple(one for one in plan.children if one["kind"] != "PodDisruptionBudget")
                return await children(self, service, seen, replace(plan, children=left))
            await status(self, service, plan, datetime.now(UTC))
        return await children(self, service, seen, plan)

    Writer.children = planted  # type: ignore[method-assign]


def forgets_the_finalizer() -> None:
    """Takes a service's end for done when the finalizer's removal was sent, not when it was answered."""
    release = Writer.release
    sent: set[str] = set()

    async def planted(self: Writer, service: Any) -> None:
        uid = service["metadata"]["uid"]
        if uid not in sent:
            sent.add(uid)
            await release(self, service)

    Writer.release = planted  # type: ignore[method-assign]


def deletes_by_name() -> None:
    """No uid is ever a precondition of a deletion, and no version of a patch."""
    delete, merge_patch = Client.delete, Client.merge_patch

    async def planted(self: Client, *where: Any, **how: Any) -> None:
        await delete(self, *where, **{**how, "uid": None})

    async def patched(self: Client, resource: Any, namespace: Any, name: Any, patch: Any, **how: Any) -> Any:
        meta = {key: value for key, value in patch.get("metadata", {}).items() if key not in ("uid", "resourceVersion")}
        return await merge_patch(self, resource, namespace, name, {**patch, "metadata": meta}, **how)

    Client.delete = planted  # type: ignore[method-assign]
    Client.merge_patch = patched  # type: ignore[method-assign]


def never_lists_again() -> None:
    """What a watch does not tell is never found out."""
    run = Informer.run

    async def planted(self: Informer[Any], relist_s: float | None = None) -> None:
        await run(self)

    Informer.run = planted  # type: ignore[method-assign]


def takes_a_refusal_for_done() -> None:
    """A write that the server fails to make is remembered as made."""
    from controllers.apply import Applier

    ensure, done = Applier.ensure, set()

    async def planted(self: Applier, wanted: Any, observed: Any) -> str | None:
        what = wanted["kind"], wanted["metadata"]["name"]
        if what in done:
            return None
        try:
            return await ensure(self, wanted, observed)
        except (Unavailable, Unreachable):
            done.add(what)
            return None

    Applier.ensure = planted  # type: ignore[method-assign]


def tries_again_at_once() -> None:
    """A write that the server fails to make is tried again without a pause."""
    apply = Client.apply

    async def planted(self: Client, resource: Any, obj: Any, **how: Any) -> Any:
        while True:
            try:
                return await apply(self, resource, obj, **how)
            except (Unavailable, Unreachable):
                await asyncio.sleep(0.005)

    Client.apply = planted  # type: ignore[method-assign]


def keeps_what_it_saw_first() -> None:
    """The spec of an object is read once and kept."""
    from controllers.inference_service.reconciler import InferenceServiceReconciler

    observe = InferenceServiceReconciler._observe
    specs: dict[str, Any] = {}

    def planted(self: InferenceServiceReconciler, key: Any, service: Any) -> Any:
        first = specs.setdefault(service["metadata"]["uid"], service["spec"])
        return observe(self, key, {**service, "spec": first})

    InferenceServiceReconciler._observe = planted  # type: ignore[method-assign]


def stumbles_over_zero() -> None:
    """One value of one field is never expected."""
    children = Writer.children

    async def planted(self: Writer, service: Any, seen: Any, plan: Any) -> Written:
        if seen.spec.rollout.revision_history_limit == 0:
            raise ZeroDivisionError("revisionHistoryLimit")
        return await children(self, service, seen, plan)

    Writer.children = planted  # type: ignore[method-assign]


def writes_each_look() -> None:
    """The status says when it was looked at, so each look writes, and each write asks for a look."""
    status = Writer.status

    async def planted(self: Writer, service: Any, plan: Any, now: datetime) -> bool:
        for one in plan.conditions:
            object.__setattr__(one, "message", f"{one.message} Looked at {now:%H:%M:%S}.")
        return await status(self, service, plan, now)

    Writer.status = planted  # type: ignore[method-assign]


PLANTS: Final[dict[str, Callable[[], None]]] = {
    one.__name__.replace("_", " "): one
    for one in (
        remembers_in_the_status,
        forgets_the_finalizer,
        deletes_by_name,
        never_lists_again,
        takes_a_refusal_for_done,
        tries_again_at_once,
        keeps_what_it_saw_first,
        stumbles_over_zero,
        writes_each_look,
    )
}
