"""Whether the fallbacks of a service make sense: every one exists, and none leads back. Pure.

Workers start in any case: a service without its fallbacks serves as well as before, it only has nowhere to send what
it cannot take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def named_fallbacks(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The other services that a spec names."""
    return tuple(one["service"] for one in spec.get("fallbacks") or () if one.get("service"))


def missing_fallback(name: str, graph: Mapping[str, Sequence[str]]) -> str | None:
    """The first fallback of `name` that is no service of the namespace. `graph`: fallbacks of each of its services."""
    return next((one for one in graph.get(name, ()) if one not in graph), None)


def circle(name: str, graph: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """A shortest way over fallbacks from `name` back to it, both ends named; empty where there is none."""
    came_from: dict[str, str] = {}
    front: Iterable[str] = (name,)
    while front:
        behind = []
        for service in front:
            for one in graph.get(service, ()):
                if one == name:
                    return _way(name, service, came_from)
                if one not in came_from:
                    came_from[one] = service
                    behind.append(one)
        front = behind
    return ()


def _way(name: str, last: str, came_from: Mapping[str, str]) -> tuple[str, ...]:
    way = [name]
    while last != name:
        way.append(last)
        last = came_from[last]
    return (name, *reversed(way[1:]), name)
