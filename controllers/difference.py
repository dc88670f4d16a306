"""Whether what we want is what the API server already has. Pure: no client, no clock.

The server adds defaults, other managers' fields and its own spelling of quantities, so equality is the wrong question.
Two right ones: did we apply exactly this before (a hash in an annotation), and is every field we want still there?
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import orjson

from crds.contract import ANNOTATION_APPLIED
from kube.resources import Object

LIST_KEYS: Final = ("name", "mountPath", "containerPort", "uid")
"""Fields that identify the entries of lists into which others may add (a sidecar, an owner). Any other list is compared
entry by entry, so that one more allowed port in a policy is a difference."""
_QUANTITY: Final = re.compile(
    r"^([+-]?[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,2})?$"
)
"""Of exponents that Kubernetes takes: names of revisions may read like numbers that are beyond all arithmetic."""
_FACTORS: Final[Mapping[str, Decimal]] = {
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}


def needs_apply(wanted: Mapping[str, Any], observed: Mapping[str, Any] | None) -> str | None:
    """Why `wanted` must be applied over `observed`, or None when the server already has it.

    Two looks: the annotation foretide.dev/applied must equal the hash of `wanted` (else a field we no longer want would
    stay), and every field of `wanted` must be in `observed` with its value (else someone changed it). Fields that only
    `observed` has are defaults or belong to others. Equal quantities ("0.5", "500m") are equal; an empty wanted value
    ({}, [], "", None) equals an absent one. An object that is being deleted needs nothing until it is gone.
    """
    if observed is None:
        return "it does not exist"
    meta = observed.get("metadata") or {}
    if meta.get("deletionTimestamp"):
        return None
    found = (meta.get("annotations") or {}).get(ANNOTATION_APPLIED)
    if found != applied_hash(wanted):
        return "it was not applied by us before" if found is None else "what we want changed"
    return first_difference(wanted, observed)


def applied_hash(wanted: Mapping[str, Any]) -> str:
    """Hash of a manifest, whatever the order of its keys; without the annotation that carries it."""
    meta = wanted.get("metadata")
    if isinstance(meta, Mapping) and ANNOTATION_APPLIED in (meta.get("annotations") or {}):
        others = {key: value for key, value in meta["annotations"].items() if key != ANNOTATION_APPLIED}
        wanted = {**wanted, "metadata": {**meta, "annotations": others}}
    return hashlib.sha256(orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def with_hash(wanted: Mapping[str, Any]) -> Object:
    """The manifest to send: `wanted` and the annotation with its hash."""
    meta = wanted["metadata"]
    annotations = {**(meta.get("annotations") or {}), ANNOTATION_APPLIED: applied_hash(wanted)}
    return {**wanted, "metadata": {**meta, "annotations": annotations}}


def first_difference(wanted: Any, observed: Any, path: str = "") -> str | None:
    """Where `observed` lacks something `wanted` says, as `spec.replicas: wanted 3, found 2`; None when nowhere."""
    if _is_empty(wanted) and (observed is None or _is_empty(observed)):
        return None
    if isinstance(wanted, Mapping) and isinstance(observed, Mapping):
        return _first_in_map(wanted, observed, path)
    if _is_list(wanted) and _is_list(observed):
        return _first_in_list(wanted, observed, path)
    if wanted == observed and isinstance(wanted, bool) == isinstance(observed, bool):
        return None
    if _same_quantity(wanted, observed):
        return None
    return f"{path or 'it'}: wanted {_short(wanted)}, found {_short(observed)}"


def controller_of(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference that controls it."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((one for one in owners if one.get("controller")), None)


def merge_conditions(
    old: Sequence[Mapping[str, Any]] | None, new: Sequence[Mapping[str, Any]], *, now: datetime, generation: int
) -> list[Object]:
    """The condition list to write: exactly the types of `new` (type, status, reason, message), in its order.

    `lastTransitionTime` stays while `status` stays; `observedGeneration` becomes `generation`.
    """
    before = {one["type"]: one for one in old or ()}
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    merged = []
    for one in new:
        last = before.get(one["type"])
        kept = last.get("lastTransitionTime") if last is not None and last.get("status") == one["status"] else None
        merged.append({**one, "observedGeneration": generation, "lastTransitionTime": kept or stamp})
    return merged


def _first_in_map(wanted: Mapping[str, Any], observed: Mapping[str, Any], path: str) -> str | None:
    for key, value in wanted.items():
        found = first_difference(value, observed.get(key), f"{path}.{key}" if path else str(key))
        if found is not None:
            return found
    return None


def _first_in_list(wanted: Sequence[Any], observed: Sequence[Any], path: str) -> str | None:
    key = _list_key(wanted, observed)
    if key is None:
        if len(wanted) != len(observed):
            return f"{path}: wanted {len(wanted)} entries, found {len(observed)}"
        pairs = [(str(at), one, observed[at]) for at, one in enumerate(wanted)]
    else:
        by_key = {one[key]: one for one in observed}
        pairs = [(f"{key}={one[key]}", one, by_key.get(one[key])) for one in wanted]
    for label, one, other in pairs:
        found = first_difference(one, other, f"{path}[{label}]")
        if found is not None:
            return found
    return None


def _list_key(wanted: Sequence[Any], observed: Sequence[Any]) -> str | None:
    """The field that identifies entries in both lists, if there is one with no two entries alike."""
    for key in LIST_KEYS:
        if all(_has_unique(entries, key) for entries in (wanted, observed)):
            return key
    return None


def _has_unique(entries: Sequence[Any], key: str) -> bool:
    if not all(isinstance(one, Mapping) and isinstance(one.get(key), str | int) for one in entries):
        return False
    return len({one[key] for one in entries}) == len(entries)


def _same_quantity(wanted: Any, observed: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(observed, bool):
        return False
    if not isinstance(wanted, str | int | float) or not isinstance(observed, str | int | float):
        return False
    left, right = _quantity(str(wanted)), _quantity(str(observed))
    return left is not None and left == right


def _quantity(text: str) -> Decimal | None:
    found = _QUANTITY.match(text)
    if found is None:
        return None
    number, unit = Decimal(found[1]), found[2]
    if unit is None:
        return number
    return number * (_FACTORS[unit] if unit in _FACTORS else Decimal(f"1{unit}"))


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | Mapping | list | tuple) and len(value) == 0)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
