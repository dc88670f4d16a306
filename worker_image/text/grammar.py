"""What an answer must look like, as the text of an llguidance grammar. Writes grammars; never compiles one.

Compiling is where a hostile schema costs: the first time in `grammar_check`'s child, then in the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from worker_image.text.tool_format import ToolFormat

WHITESPACE: Final = r"[ \n\t]{1,40}"
"""Between JSON's tokens. Bounded, because a model that is lost would write line breaks for ever."""
_OPTIONS: Final = {"whitespace_pattern": WHITESPACE}


def json_object_grammar() -> str:
    """Any JSON object."""
    return json_schema_grammar({"type": "object"})


def json_schema_grammar(schema: Mapping[str, Any]) -> str:
    """JSON that satisfies `schema`."""
    guided = {**schema, "x-guidance": _OPTIONS}
    return orjson.dumps({"grammars": [{"name": "answer", "json_schema": guided}]}).decode()


def tools_grammar(format: ToolFormat, tools: Sequence[tuple[str, Mapping[str, Any]]], *, several: bool) -> str:
    """One call of one of the tools (name, schema of its arguments), or with `several` one or more, and nothing else."""
    calls = [_call_schema(format, name, parameters) for name, parameters in tools]
    schema = {"anyOf": calls, "x-guidance": _OPTIONS}
    more = f" ({_quoted(format.separator)} call)*" if several else ""
    opening, closing = (f"{_quoted(text)} " if text else "" for text in (format.opening, format.closing))
    lines = [f"start: call{more}", f"call: {opening}json {closing}".rstrip(), f"json: %json {_json(schema)}"]
    return _json({"grammars": [{"name": "calls", "lark_grammar": "\n".join(lines)}]})


def _call_schema(format: ToolFormat, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    # `$defs` are looked up from the root of the whole schema, where the arguments' own root is not.
    properties = {"name": {"const": name}, format.arguments_key: parameters}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _quoted(text: str) -> str:
    return _json(text)
