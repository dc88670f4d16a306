"""Turns the pydantic types into CustomResourceDefinitions with structural OpenAPI v3 schemas.

Explicit on purpose: it knows the few shapes that our types use and refuses every other, so that what the API server
checks is what one reads in the types. Never used at run time.
"""

from __future__ import annotations

import enum
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from crds.contract import CATEGORY, GROUP, VERSION
from crds.fields import IntOrString, ListMap, ListSet, Part, Rule
from crds.kinds import KINDS, Column, Kind

Schema = dict[str, Any]


class RenderError(TypeError):
    """A type has a shape that the renderer does not know."""


def render(kind: Kind) -> Schema:
    """The whole CustomResourceDefinition of `kind`."""
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(c) for c in kind.columns],
        "schema": {"openAPIV3Schema": _root(kind)},
        "subresources": _subresources(kind),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "foretide"}},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "categories": [CATEGORY],
                **({"shortNames": list(kind.short_names)} if kind.short_names else {}),
            },
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _root(kind: Kind) -> Schema:
    schema: Schema = {
        "type": "object",
        "description": kind.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
            "kind": {"type": "string", "description": kind.kind},
            "metadata": {"type": "object"},
            "spec": object_schema(kind.spec),
            "status": object_schema(kind.status),
        },
    }
    return schema | _validations(kind.name_rules)


def _subresources(kind: Kind) -> Schema:
    out: Schema = {"status": {}}
    if kind.scale:
        out["scale"] = {
            "specReplicasPath": kind.scale.spec_replicas,
            "statusReplicasPath": kind.scale.status_replicas,
            "labelSelectorPath": kind.scale.selector,
        }
    return out


def _column(column: Column) -> Schema:
    out: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.description:
        out["description"] = column.description
    if column.wide:
        out["priority"] = 1
    return out


def object_schema(model: type[BaseModel]) -> Schema:
    """Schema of an object: its properties, what is required, its CEL rules."""
    properties = {_outside_name(name, info): field_schema(info) for name, info in model.model_fields.items()}
    required = [_outside_name(name, info) for name, info in model.model_fields.items() if info.is_required()]
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    rules = model.rules if issubclass(model, Part) else ()
    return schema | _validations(rules)


def _outside_name(name: str, info: FieldInfo) -> str:
    return info.alias or name


def field_schema(info: FieldInfo) -> Schema:
    """Schema of one field. Raises RenderError when it has no description or an unknown shape."""
    if not info.description:
        raise RenderError(f"field of type {info.annotation} has no description; every field is documented")
    schema = _type_schema(info.annotation)
    for item in info.metadata:
        _mark(schema, item)
    rules = tuple(item for item in info.metadata if isinstance(item, Rule))
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    return {"description": info.description} | schema | extra | _default(info) | _validations(rules)


def _default(info: FieldInfo) -> Schema:
    if info.default in (None, PydanticUndefined, ...):
        return {}
    if isinstance(info.default, Part):
        return {"default": info.default.dump()}
    if isinstance(info.default, enum.Enum):
        return {"default": info.default.value}
    return {"default": info.default}


def _type_schema(annotation: Any) -> Schema:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        schema = _type_schema(args[0])
        for item in args[1:]:
            for constraint in item.metadata if isinstance(item, FieldInfo) else (item,):
                _mark(schema, constraint)
        return schema
    if origin in (Union, types.UnionType):
        inner = [a for a in args if a is not type(None)]
        if len(inner) == 1:
            return _type_schema(inner[0])
    if origin is list:
        return {"type": "array", "items": _type_schema(args[0])}
    if origin is dict and args == (str, str):
        return {"type": "object", "additionalProperties": {"type": "string", "maxLength": 253}}
    if isinstance(annotation, type):
        return _class_schema(annotation)
    raise RenderError(f"no schema for {annotation!r}")


def _class_schema(cls: type) -> Schema:
    if issubclass(cls, BaseModel):
        return object_schema(cls)
    if issubclass(cls, enum.StrEnum):
        return {"type": "string", "enum": [member.value for member in cls]}
    simple: dict[type, Schema] = {
        str: {"type": "string"},
        bool: {"type": "boolean"},
        int: {"type": "integer", "format": "int64"},
    }
    if cls in simple:
        return dict(simple[cls])
    raise RenderError(f"no schema for {cls!r}")


_LENGTH_WORDS = {"string": "Length", "array": "Items", "object": "Properties"}


def _mark(schema: Schema, item: Any) -> None:
    """Adds what one piece of `Annotated` metadata says to `schema`, in place."""
    match item:
        case Ge(ge=bound):
            schema["minimum"] = bound
        case Le(le=bound):
            schema["maximum"] = bound
        case MinLen(min_length=n):
            schema["min" + _LENGTH_WORDS[schema["type"]]] = n
        case MaxLen(max_length=n):
            schema["max" + _LENGTH_WORDS[schema["type"]]] = n
        case ListMap(keys=keys):
            schema["x-kubernetes-list-type"] = "map"
            schema["x-kubernetes-list-map-keys"] = list(keys)
        case ListSet():
            schema["x-kubernetes-list-type"] = "set"
        case IntOrString(pattern=pattern, characters=characters):
            # The first two bounds are those of a string, the others of a number, which the API server reads as a float.
            schema.clear()
            schema.update(
                {
                    "x-kubernetes-int-or-string": True,
                    "anyOf": [{"type": "integer"}, {"type": "string"}],
                    "pattern": pattern,
                    "maxLength": characters,
                    "minimum": 0,
                    "maximum": 10 ** (characters - 1) - 1,
                }
            )
        case StringConstraints():
            _mark_string(schema, item)
        case _ if hasattr(item, "pattern") and item.pattern is not None:
            schema["pattern"] = item.pattern


def _mark_string(schema: Schema, item: StringConstraints) -> None:
    for word, value in (("minLength", item.min_length), ("maxLength", item.max_length), ("pattern", item.pattern)):
        if value is not None:
            schema[word] = value


def _validations(rules: tuple[Rule, ...]) -> Schema:
    if not rules:
        return {}
    return {"x-kubernetes-validations": [{"rule": r.rule, "message": r.message} for r in rules]}


class _Dumper(yaml.SafeDumper):
    """Writes lists indented, as people do."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def text(kind: Kind) -> str:
    """The CustomResourceDefinition as YAML, with a first line that says who wrote it."""
    body = yaml.dump(render(kind), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return f"# Made by `make generate` from crds/kinds.py; edit there.\n{body}"


def write(folders: list[Path]) -> None:
    """Writes one file per kind into each folder."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            (folder / f"{GROUP}_{kind.plural}.yaml").write_text(text(kind))


if __name__ == "__main__":
    write([Path(argument) for argument in sys.argv[1:]])
