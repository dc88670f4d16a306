"""How the fake API server reads selectors and changes objects: merge, RFC 7386, leaves of an apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kube.resources import Object

Path = tuple[str, ...]


def selected(obj: Object, label_selector: str | None, field_selector: str | None) -> bool:
    labels = obj["metadata"].get("labels") or {}
    for part in (label_selector or "").split(","):
        if "!=" in part:
            key, _, value = part.partition("!=")
            if labels.get(key) == value:
                return False
            continue
        key, equals, value = part.partition("=")
        if part and (labels.get(key) != value.lstrip("=") if equals else key not in labels):
            return False
    for part in (field_selector or "").split(","):
        path, _, value = part.partition("=")
        if part and str(_at(obj, path.split("."))) != value.lstrip("="):
            return False
    return True


def _at(obj: Any, path: Sequence[str]) -> Any:
    for key in path:
        obj = (obj or {}).get(key)
    return obj


def leaves(value: Any, path: Path = ()) -> list[Path]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    return [path]


def merge(target: Object, source: Mapping[str, Any]) -> None:
    for key, value in source.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value


def remove(target: Object, path: Path) -> None:
    *parents, last = path
    for key in parents:
        inner = target.get(key)
        if not isinstance(inner, dict):
            return
        target = inner
    target.pop(last, None)


def merge_patch(target: Object, patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            inner = target.get(key)
            if not isinstance(inner, dict):
                inner = target[key] = {}
            merge_patch(inner, value)
        else:
            target[key] = value
