"""How a model writes a tool call, as its chat template gives it away. The template is the only evidence there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class ToolFormat:
    """A call is `opening` + JSON with "name" and `arguments_key` + `closing`; `separator` stands between two."""

    name: str
    opening: str
    closing: str
    separator: str
    arguments_key: str


HERMES: Final = ToolFormat("hermes", "<tool_call>\n", "\n</tool_call>", "\n", "arguments")
"""Hermes, Qwen 2.5 and Qwen 3."""
LLAMA: Final = ToolFormat("llama", "", "", "; ", "parameters")
"""Llama 3.1 to 3.3: the whole answer is the call."""
MARKERS: Final = ("<tool_call>", "</tool_call>")
"""Tokens that some vocabularies call special, and that are read as text all the same."""


def tool_format(template_source: str) -> ToolFormat | None:
    """None where the template knows no tools, or writes their calls in a way that is not known here."""
    if "tools" not in template_source:
        return None
    if "<tool_call>" in template_source:
        return HERMES
    if "<|python_tag|>" in template_source or ('"parameters"' in template_source and "<|eot_id|>" in template_source):
        return LLAMA
    return None
