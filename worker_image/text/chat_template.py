"""Renders the checkpoint's chat template. It comes from a file somebody made, so it runs in Jinja's sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from worker_image.errors import CheckpointError, RequestError

TEMPLATE_FAILURES: Final = (
    TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError, MemoryError
)  # fmt: skip
"""What compiling somebody's template, and running it on somebody's messages, can end in."""
MOST_PRODUCED: Final = 1_000_000
"""Characters, items or bits that one operation of a template may make."""


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks what the assistant said, for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012 - Jinja reads it from the class

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's, which keeps a template from other objects but not from all of the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        size = right * left.bit_length() if operator == "**" and _are_ints(left, right) else 0
        for many, times in ((left, right), (right, left)):
            if operator == "*" and isinstance(times, int) and isinstance(many, str | bytes | list | tuple):
                size = len(many) * times
        if size > MOST_PRODUCED:
            raise SecurityError(f"'{operator}' would make a value of {size} parts; {MOST_PRODUCED} are allowed")
        return super().call_binop(context, operator, left, right)


def _are_ints(*values: object) -> bool:
    return all(isinstance(value, int) for value in values)


class ChatTemplate:
    """A compiled template. The globals are those that templates on the Hub expect."""

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        """Raises CheckpointError where the template does not compile."""
        environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
        environment.filters["tojson"] = _tojson
        environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
        try:
            self._template: Template = environment.from_string(source)
        except TEMPLATE_FAILURES as error:
            raise CheckpointError(f"the checkpoint's chat template does not compile: {error}.") from None
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
        created: int | None = None,
    ) -> str:
        """The prompt, with the assistant's turn begun. `variables`: what else the template may look at, e.g. tools.

        created: Unix seconds of the request, where they are not now: a template may write today's date.

        Raises RequestError where the template refuses the messages.
        """
        given = {"add_generation_prompt": True} | dict(variables or {}) | self._tokens | {"messages": messages}
        if created is not None:
            given["strftime_now"] = datetime.fromtimestamp(created).strftime
        try:
            return self._template.render(given)
        except TEMPLATE_FAILURES as error:
            kind = "broke the sandbox's rules" if isinstance(error, SecurityError) else "refuses these messages"
            raise RequestError(f"the model's chat template {kind}: {error}.", param="messages") from None


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes HTML, which would put &lt; into prompts.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
