"""docs/reference/values.md, made of the chart's values.yaml, its comments and its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.handbook.schemas import Schema, allowed, type_of
from tests.handbook.tables import code, made, prose, table, value

CHART: Final = Path(__file__).parents[2] / "charts/foretide"

HEAD: Final = """\
# Helm values

{made}
Of the chart `charts/foretide`. Helm refuses values that are not listed or of another type. The chart
`foretide-crds` has none.

"""


@dataclass(frozen=True, slots=True)
class Value:
    """One key of values.yaml: a leaf, or a group of them."""

    path: str
    default: Any
    says: str


def page() -> str:
    """The whole file."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    found = [*values((CHART / "values.yaml").read_text(encoding="utf-8"))]
    groups: dict[str, list[Value]] = {}
    for one in found:
        groups.setdefault(one.path.split(".")[0], []).append(one)
    head = HEAD.format(made=made("charts/foretide/values.yaml and its schema"))
    return head + "\n".join(_section(name, of_it, schema) for name, of_it in groups.items())


def _section(name: str, of_it: list[Value], schema: Schema) -> str:
    """A group says what it is about above its table; a value by itself says it in the table."""
    first, *others = of_it
    about = f"{prose(first.says)}\n\n" if others and first.says else ""
    return f"## {name}\n\n{about}{_table(others or of_it, schema)}"


def _table(rows: list[Value], schema: Schema) -> str:
    return table(("value", "type", "default", "allowed", "says"), (_row(one, schema) for one in rows))


def _row(one: Value, schema: Schema) -> tuple[str, ...]:
    field = _at(schema, one.path)
    return (
        code(one.path),
        type_of(field),
        "" if one.default is None else value(one.default),
        allowed(field),
        prose(one.says),
    )


def _at(schema: Schema, path: str) -> Schema:
    """The schema of a value. Raises KeyError for one that it does not know."""
    field: Any = schema
    for name in path.split("."):
        field = field["properties"][name]
        if "$ref" in field:
            field = schema["$defs"][field["$ref"].rpartition("/")[2]]
    return field  # type: ignore[no-any-return]


def values(text: str) -> Iterator[Value]:
    """Groups before what is in them. A comment belongs to the keys right below it, at the same indentation."""
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    yield from _walk(root, "", text.splitlines())


def _walk(node: yaml.MappingNode, within: str, lines: list[str]) -> Iterator[Value]:
    for key, item in node.value:
        path = f"{within}.{key.value}" if within else str(key.value)
        says = _comment(lines, key.start_mark.line, key.start_mark.column)
        default = yaml.safe_load(yaml.serialize(item))
        group = isinstance(item, yaml.MappingNode) and item.value and not _is_value(path)
        if not group or not within or says:
            yield Value(path, None if group else default, says)
        if group:
            yield from _walk(item, path, lines)


def _is_value(path: str) -> bool:
    """Maps that stand for themselves: what is in them is Kubernetes' or the user's."""
    return path.rpartition(".")[2] in {"resources", "nodeSelector", "labels", "annotations"}


def _comment(lines: list[str], at: int, column: int) -> str:
    if lines[at][:column].strip():
        return ""
    found: list[str] = []
    while at > 0 and lines[at - 1].startswith(" " * column + "#"):
        at -= 1
        found.insert(0, lines[at].strip().removeprefix("#").strip())
    return " ".join(found)
