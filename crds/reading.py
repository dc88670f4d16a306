"""Reads an object that the API server may have stored under other rules than this release's: after an upgrade or a
rollback, under a CRD that somebody loosened, or as a value that ratcheting lets stand.

Such an object is read by its parts: what breaks a rule is left out, or is the nearest value that the rule allows, and
all else counts as it stands. So whoever reads the object afterwards finds a spec and a status that its types accept,
beside a note of what was not read (`UNREAD`). What follows from that is each reader's matter. Pure: it depends on the
object alone, so every process, restarted or not, reads the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from crds.fields import Part
from crds.kinds import INFERENCE_SERVICE, KINDS, MODEL, SLA, TENANT

UNREAD: Final = "unread"
"""Key beside `metadata`, `spec` and `status` of an object that was read by its parts: a tuple of Unread."""
NOT_UNDERSTOOD: Final = "NotUnderstood"
"""Reason of the conditions, in every kind."""
_ROUNDS: Final = 16
"""What is left out can make its surroundings break another rule; nothing of ours nests deeper."""
_TOLD: Final = 3
_LONGEST: Final = 60
_BOUNDS: Final = {"greater_than_equal": "ge", "less_than_equal": "le"}
_STAND_INS: Final[Mapping[str, Mapping[str, Any]]] = {
    INFERENCE_SERVICE.kind: {"model": "unread", "accelerator": {"cpu": {}}},
    MODEL.kind: {"source": "unread"},
    SLA.kind: {"priority": "P2"},
    TENANT.kind: {"namespaces": ["unread"]},
}
"""For what a spec must have, where it cannot be read: only so that there is a spec. Nothing is started on it."""
_KINDS: Final = {one.kind: one for one in KINDS}


@dataclass(frozen=True, slots=True)
class Unread:
    """One value that this release's rules do not allow."""

    path: tuple[str, ...]
    """From the object: `("spec", "quota", "gpus")`."""
    found: str
    allowed: str
    """In the words of the rule."""
    counts: str | None = None
    """The nearest allowed value, which counts meanwhile; None where nothing does."""

    @property
    def sentence(self) -> str:
        """Which field, what was found, what is allowed, and what counts until it is mended."""
        meanwhile = f"{self.counts} counts meanwhile" if self.counts else "it is left out meanwhile"
        return f"{'.'.join(self.path)} is {self.found}: {self.allowed} ({meanwhile})."


def understood(obj: dict[str, Any]) -> dict[str, Any]:
    """`obj` itself where all of it can be read; else as much of it as can, with the rest noted under `UNREAD`."""
    kind = _KINDS.get(str(obj.get("kind")))
    if kind is None:
        return obj
    spec, unread = _read(kind.spec, obj.get("spec"), "spec", _STAND_INS.get(kind.kind, {}))
    status, lost = _read(kind.status, obj.get("status") or {}, "status", {})
    if not unread and not lost:
        return obj
    if kind is TENANT:
        spec["namespaces"] = _names(obj.get("spec"))
    read = {**obj, "spec": spec, UNREAD: (*unread, *lost)}
    return read | {"status": status} if obj.get("status") else read


def unread_of(obj: Mapping[str, Any] | None, part: str = "spec") -> tuple[Unread, ...]:
    """What of its spec, or its status, could not be read."""
    return tuple(one for one in (obj or {}).get(UNREAD) or () if one.path[0] == part)


def concerns(unread: Iterable[Unread], *fields: str) -> bool:
    """Whether one of these fields of the spec, or the spec as a whole, is among them."""
    return any(len(one.path) == 1 or one.path[1] in fields for one in unread)


def explained(unread: Sequence[Unread]) -> str:
    """For people: the values in question, why, and what to do."""
    advice = "It was stored under other rules than this release's. Apply it anew, with what is allowed."
    return f"{listed(unread)} {advice}"


def listed(unread: Sequence[Unread]) -> str:
    """The values in question, the first few by name."""
    told = " ".join(one.sentence for one in unread[:_TOLD])
    return told if len(unread) <= _TOLD else f"{told} So are {len(unread) - _TOLD} more."


def unread_in(error: ValidationError, part: str) -> tuple[Unread, ...]:
    """What `error` says of a spec or status."""
    return tuple(_unread(one, part) for one in error.errors(include_url=False))


def _read(
    kind: type[Part], said: Any, part: str, stand_ins: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[Unread, ...]]:
    found: tuple[Unread, ...] = ()
    value: Any = said
    for _ in range(_ROUNDS):
        try:
            kind.model_validate(value)
        except ValidationError as error:
            found = found or unread_in(error, part)
            value = _mended(value, error, stand_ins)
        else:
            return _filled(value, stand_ins) if found else value, found
    return copy.deepcopy(dict(stand_ins)), found


def _filled(value: Mapping[str, Any], stand_ins: Mapping[str, Any]) -> dict[str, Any]:
    """Of an accelerator, say, nothing may be left."""
    empty = {name: copy.deepcopy(one) for name, one in stand_ins.items() if not value.get(name)}
    return {**value, **empty}


def _unread(error: Any, part: str) -> Unread:
    path = (part, *map(str, error["loc"]))
    allowed = str(error["msg"])
    if error["type"] == "missing":
        return Unread(path, "missing", allowed)
    found = repr(error["input"])
    shown = found if len(found) <= _LONGEST else f"{found[: _LONGEST - 1]}…"
    bound = _bound(error)
    return Unread(path, shown, allowed, None if bound is None else str(bound))


def _bound(error: Any) -> Any:
    """The nearest value that is allowed; None where there is none."""
    return (error.get("ctx") or {}).get(_BOUNDS.get(error["type"], ""))


def _mended(value: Any, error: ValidationError, stand_ins: Mapping[str, Any]) -> Any:
    """`value` without what `error` speaks of."""
    if not isinstance(value, Mapping):
        return copy.deepcopy(dict(stand_ins))
    mended: dict[str, Any] = copy.deepcopy(dict(value))
    away: set[tuple[Any, ...]] = set()
    for one in error.errors(include_url=False):
        path: tuple[Any, ...] = tuple(one["loc"])
        if one["type"] == "missing" and len(path) == 1 and path[0] in stand_ins:
            mended[path[0]] = copy.deepcopy(stand_ins[path[0]])
        elif (bound := _bound(one)) is not None:
            _at(mended, path[:-1])[path[-1]] = bound
        elif one["type"] == "too_long":
            del _at(mended, path)[one["ctx"]["max_length"] :]
        else:
            away.add(_deepest(mended, path[:-1] if one["type"] == "missing" else path))
    if () in away:
        return copy.deepcopy(dict(stand_ins))
    # From behind, so that the places in a list stay what they were.
    for path in sorted(away, reverse=True):
        if not any(path[:length] in away for length in range(1, len(path))):
            del _at(mended, path[:-1])[path[-1]]
    return mended


def _at(value: Any, path: Sequence[Any]) -> Any:
    for step in path:
        value = value[step]
    return value


def _deepest(value: Any, path: Sequence[Any]) -> tuple[Any, ...]:
    """As far of `path` as there is something: errors in unions and in keys name more steps than the value has."""
    reached: list[Any] = []
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            break
        reached.append(step)
    return tuple(reached)


def _names(spec: Any) -> list[str]:
    """All namespaces that a Tenant lists, however many: what is no name can be no namespace's."""
    said = spec.get("namespaces") if isinstance(spec, Mapping) else None
    return [one for one in said if isinstance(one, str)] if isinstance(said, list) else []
