"""JSON schemas as a reader wants them: one word for the type, and what a value may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from crds.fields import DNS_LABEL, DURATION, LONG_DURATION, MOMENT, QUANTITY
from tests.handbook.tables import code

Schema = Mapping[str, Any]

_KNOWN: Final = {
    DNS_LABEL: "lower-case letters, digits and `-`",
    DURATION: "a duration: `50ms`, `1s`, `2m`",
    LONG_DURATION: "a duration: `30m`, `12h`, `28d`",
    MOMENT: "a time: `2026-01-01T06:00:00Z`",
    QUANTITY: "a quantity: `1`, `500m`, `2Gi`",
}


def type_of(schema: Schema) -> str:
    """`string`, `integer`, `list of object`, `map of string`, …"""
    if "x-kubernetes-int-or-string" in schema:
        return "quantity"
    if "enum" in schema:
        return "word"
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping):
        return f"map of {type_of(extra)}"
    return str(schema.get("type", "any"))


def allowed(schema: Schema) -> str:
    """Bounds, words and patterns; of a list those of its items too. Bounds of a quantity are beyond any use of one."""
    found = [*_words(schema), *(_bounds(schema) if type_of(schema) != "quantity" else ())]
    if schema.get("type") == "array":
        inner = allowed(schema["items"]) if schema["items"].get("type") != "object" else ""
        found += [f"each {inner}"] if inner else []
    return "; ".join(found)


def _words(schema: Schema) -> list[str]:
    if "enum" in schema:
        return [", ".join(code(str(word)) for word in schema["enum"])]
    if "const" in schema:
        return [code(str(schema["const"]))]
    if "title" in schema:
        return [schema["title"]]
    pattern = schema.get("pattern")
    return [_KNOWN.get(pattern) or code(pattern)] if pattern else []


def _bounds(schema: Schema) -> list[str]:
    found = ["not empty"] if schema.get("minLength") == 1 and "maxLength" not in schema else []
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " entries"),
    ):
        least, most = schema.get(low), schema.get(high)
        if least is not None and most is not None:
            found.append(f"{least:,} to {most:,}{unit}")
        elif least is not None and (low, least) != ("minLength", 1):
            found.append(f"at least {least:,}{unit}")
        elif most is not None:
            found.append(f"at most {most:,}{unit}")
    if "exclusiveMinimum" in schema:
        found.append(f"more than {schema['exclusiveMinimum']}")
    if "multipleOf" in schema:
        found.append(f"a multiple of {schema['multipleOf']}")
    return found
