"""Every field of every CRD, changed in every way that a person or a tool could: made from the schemas, by no hand.

A mutation is a whole spec: the base with one field at its bounds, deleted, null, of another value of its enum, or
nonsense. Whether the API server takes it is its matter. Pure.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from crds.fields import DURATION, LONG_DURATION
from crds.kinds import KINDS
from crds.render import object_schema

NAME: Final = "NAME"
"""In a base, stands for the object's own name."""
Path = tuple[str | int, ...]
Spec = dict[str, Any]


class _Deleted:
    """Instead of a value: the field goes."""


BASES: Final[dict[str, Spec]] = {
    "InferenceService": {
        "model": "m",
        "sla": "s",
        "accelerator": {"cpu": {}},
        "replicas": 1,
        "rollout": {"drainTimeout": "1s"},
    },
    "Model": {"source": "https://models.example.com/m.gguf"},
    "SLA": {"priority": "P1", "targets": {"ttft": "800ms", "tpot": "50ms"}, "availability": "99.9%", "window": "28d"},
    "Tenant": {"namespaces": [NAME], "apiKeys": [{"secret": "key"}], "quota": {"replicas": 4}},
    "CapacityForecast": {"service": NAME},
    "GPUPool": {"nodeSelector": {"pool": NAME}},
    "AlertPolicy": {
        "rules": [{"name": "down", "metric": "unservable", "threshold": {"above": "0"}, "for": "60m"}],
        "export": True,
    },
}
_COSTLY: Final = frozenset({"replicas", "min"})
"""Numbers of workers: three are as good as a thousand."""
_EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    DURATION: ("1ms", "999999m"),
    LONG_DURATION: ("1m", "9999d"),
}


@dataclass(frozen=True)
class Mutation:
    """One changed spec of one kind."""

    kind: str
    path: str
    how: str
    spec: Spec

    def __str__(self) -> str:
        return f"{self.kind}.{self.path} {self.how}"


def mutations() -> Iterator[Mutation]:
    """All of them, kind after kind, field after field."""
    for kind in KINDS:
        for path, schema, spec in _fields(object_schema(kind.spec), (), BASES[kind.kind]):
            written = ".".join(map(str, path))
            for how, value in _values(str(path[-1]), schema):
                changed = _with(spec, path, value)
                if changed != BASES[kind.kind]:
                    yield Mutation(kind.kind, written, how, changed)


def _fields(schema: Spec, at: Path, spec: Spec) -> Iterator[tuple[Path, Spec, Spec]]:
    """Each field with its schema, and the base in which what is above it exists."""
    for name, field in (schema.get("properties") or {}).items():
        path = (*at, name)
        yield path, field, spec
        inner, step = (field.get("items") or {}, (*path, 0)) if field.get("type") == "array" else (field, path)
        if inner.get("properties"):
            yield from _fields(inner, step, _grown(spec, step, inner, is_list=inner is not field))


def _grown(spec: Spec, path: Path, schema: Spec, *, is_list: bool) -> Spec:
    """The spec with the smallest valid object at the path, where there is none."""
    if _get(spec, path) is not None:
        return spec
    return _with(spec, path[:-1], [smallest(schema)]) if is_list else _with(spec, path, smallest(schema))


def smallest(schema: Spec) -> Any:
    """A valid value of few words."""
    if "default" in schema:
        return copy.deepcopy(schema["default"])
    if schema.get("enum"):
        return schema["enum"][0]
    if schema.get("x-kubernetes-int-or-string"):
        return "1"
    match schema.get("type"):
        case "object":
            required = schema.get("required") or ()
            return {name: smallest(schema["properties"][name]) for name in required}
        case "array":
            return [smallest(schema["items"]) for _ in range(schema.get("minItems", 0))]
        case "integer":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    return _EXAMPLES.get(str(schema.get("pattern")), ("a",))[0]


def _values(name: str, schema: Spec) -> Iterator[tuple[str, Any]]:
    yield "deleted", _Deleted
    yield "null", None
    yield from _typed(name, schema)
    yield "nonsense", {"no": ["such", "thing"]} if schema.get("type") == "string" else "☃; rm -rf / #"


def _typed(name: str, schema: Spec) -> Iterator[tuple[str, Any]]:
    if schema.get("enum"):
        yield from ((f"'{one}'", one) for one in schema["enum"][:6])
        yield "of no enum", "noSuchValue"
    elif schema.get("x-kubernetes-int-or-string"):
        yield from ((f"'{one}'", one) for one in ("0", "1m", "1", "999999999Ti", "-1"))
        yield "1 as a number", 1
    elif schema.get("type") == "integer":
        yield from _integers(name, schema)
    elif schema.get("type") == "boolean":
        yield from (("true", True), ("false", False))
    elif schema.get("type") == "string":
        yield from _strings(schema)
    elif schema.get("type") == "array":
        yield "empty", []
        yield "one", [smallest(schema["items"])]
        yield "the same twice", [smallest(schema["items"])] * 2
        yield "one too many", [smallest(schema["items"])] * (schema.get("maxItems", 100) + 1)
    elif schema.get("type") == "object":
        yield "empty", {}
        if "properties" not in schema:
            yield from (("one entry", {"a": "b"}), ("an empty key", {"": ""}))


def _integers(name: str, schema: Spec) -> Iterator[tuple[str, Any]]:
    least, most = schema.get("minimum", 0), schema.get("maximum", 2**31)
    yield f"{least}, its least", least
    yield f"{least - 1}, below its least", least - 1
    yield (f"{most}, its most", most) if name not in _COSTLY else ("3", 3)
    yield f"{most + 1}, above its most", most + 1


def _strings(schema: Spec) -> Iterator[tuple[str, Any]]:
    longest = schema.get("maxLength", 253)
    yield from ((f"'{one}'", one) for one in _EXAMPLES.get(str(schema.get("pattern")), ("a", "1")))
    yield "empty", ""
    yield "as long as may be", "a" * min(longest, 4096)
    yield "longer than may be", "a" * (longest + 1)


def _get(spec: Any, path: Path) -> Any:
    for step in path:
        try:
            spec = spec[step]
        except (KeyError, IndexError, TypeError):
            return None
    return spec


def _with(spec: Spec, path: Path, value: Any) -> Spec:
    """A copy with the value at the path; what is above it is made where it is missing."""
    made = copy.deepcopy(spec)
    here: Any = made
    for step in path[:-1]:
        if isinstance(step, str) and step not in here:
            here[step] = {}
        here = here[step]
    if value is _Deleted:
        if isinstance(here, dict):
            here.pop(path[-1], None)
    else:
        here[path[-1]] = copy.deepcopy(value)
    return made


def named(spec: Spec, name: str) -> Spec:
    """The spec for the object of that name."""
    return {key: _named(value, name) for key, value in spec.items()}


def _named(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _named(one, name) for key, one in value.items()}
    if isinstance(value, list):
        return [_named(one, name) for one in value]
    return name if value == NAME else value
