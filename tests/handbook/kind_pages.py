"""docs/reference/KIND.md: every field of a kind, as its CustomResourceDefinition has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from crds.contract import GROUP, VERSION
from crds.kinds import KINDS, Column, Kind
from crds.render import render
from tests.handbook.schemas import Schema, allowed, type_of
from tests.handbook.tables import code, made, prose, table, value

_HEAD: Final = ("field", "type", "default", "allowed", "says")


def file_of(kind: Kind) -> str:
    """Below docs/."""
    return f"reference/{kind.singular}.md"


def page(kind: Kind) -> str:
    """The whole file."""
    schema: Schema = render(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    parts = [
        f"# {kind.kind}\n",
        made("the types in `crds/`"),
        f"{kind.description}\n",
        _names(kind),
        *_rules(schema, "metadata"),
        "## spec\n",
        "A field in **bold** is required, where the object that it is in is there.\n",
        _fields(schema["properties"]["spec"]),
        *_rules(schema["properties"]["spec"], "spec"),
        "## status\n",
        "The operator writes it.\n",
        _fields(schema["properties"]["status"]),
        "## Columns\n",
        f"Of `kubectl get {kind.plural}`; those marked *wide* with `-o wide`.\n",
        table(("column", "is"), (_column(column) for column in kind.columns)),
    ]
    return "\n".join(parts)


def _names(kind: Kind) -> str:
    short = ", ".join(code(name) for name in kind.short_names) or "–"
    rows = [
        ("apiVersion", code(f"{GROUP}/{VERSION}")),
        ("plural", code(kind.plural)),
        ("short", short),
        ("scope", "namespace" if kind.namespaced else "cluster"),
        ("`kubectl scale`", "yes" if kind.scale else "no"),
    ]
    return table(("", ""), rows)


def _fields(schema: Schema) -> str:
    return table(_HEAD, _rows(schema, ""))


def _rows(schema: Schema, within: str) -> Iterator[tuple[str, ...]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        path = f"{within}.{name}" if within else name
        shown = f"**{code(path)}**" if name in required else code(path)
        default = value(field["default"]) if "default" in field else ""
        yield shown, type_of(field), default, allowed(field), prose(field["description"])
        inner = field.get("items", {}) if field["type" if "type" in field else "anyOf"] == "array" else field
        yield from _rows(inner, path + "[]" if inner is not field else path)


def _rules(schema: Schema, within: str) -> Iterator[str]:
    """Sentences of the CEL rules, with which the API server refuses an object."""
    found = [*_messages(schema, within)] if within != "metadata" else _own(schema, within)
    if found:
        yield f"What the API server refuses besides ({within}):\n"
        yield "".join(f"- {where}: {prose(message)}\n" for where, message in found)


def _own(schema: Schema, within: str) -> list[tuple[str, str]]:
    return [(code(within), rule["message"]) for rule in schema.get("x-kubernetes-validations", ())]


def _messages(schema: Schema, within: str) -> Iterator[tuple[str, str]]:
    yield from _own(schema, within)
    for name, field in schema.get("properties", {}).items():
        yield from _messages(field, f"{within}.{name}")
    if "items" in schema:
        yield from _messages(schema["items"], within + "[]")


def _column(column: Column) -> tuple[str, str]:
    name = f"{column.name} (*wide*)" if column.wide else column.name
    said = f" ({prose(column.description)})" if column.description else ""
    return name, code(column.path) + said


PAGES: Final = {file_of(kind): kind for kind in KINDS}
