"""docs/reference/commands.md: arguments and flags of `foretide` and of the processes that people start by hand.

Made of what the programs' parsers are built from, not of their help texts, whose form is another with each release of
their libraries.
"""

from __future__ import annotations

import argparse
import enum
import inspect
import re
import types
from collections.abc import Callable, Iterator
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from typer import Context
from typer.models import ArgumentInfo, OptionInfo

from cli.main import app
from controllers.model_cache.settings import _parser as node_agent
from gateway.settings import _parser as gateway
from tests.handbook.tables import code, made, prose, table, value
from worker_image.__main__ import _parser as worker

_HEAD: Final = ("", "default", "says")
_MACHINE: Final = {"--device": "`cuda` with an NVIDIA driver, else `cpu`", "--threads": "those it may use"}
"""What depends on the machine that makes the page."""
_FOLDED: Final = frozenset({"-h", "--help"})

TEXT: Final = """\
# Commands

{made}
`foretide` is also `kubectl foretide`; [its page](../cli.md) shows what it prints. The flags of gateway and worker are
for starting them by hand, and the gateway's for the chart's `gateway.extraArgs`; the node agent's are set by the chart.
"""


def page() -> str:
    """The whole file."""
    return "\n".join([TEXT.format(made=made("the programs' own parsers")), *_ours(), *_processes()])


def _ours() -> Iterator[str]:
    for one in app.registered_commands:
        assert one.name is not None
        assert one.callback is not None
        yield f"## foretide {one.name}\n"
        yield f"{prose(inspect.getdoc(one.callback) or '')}\n"
        yield table(_HEAD, _parameters(one.callback))


def _parameters(command: Callable[..., Any]) -> Iterator[tuple[str, ...]]:
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        if hints[name] is Context:
            continue
        kind, info = get_args(hints[name])[:2]
        assert isinstance(info, ArgumentInfo | OptionInfo), f"{name} of {command} says nothing of itself"
        if not getattr(info, "hidden", False):
            yield _named(name, info, kind), _default(parameter.default), prose(info.help or "")


def _named(name: str, info: ArgumentInfo | OptionInfo, kind: Any) -> str:
    if isinstance(info, ArgumentInfo):
        return code(info.metavar or name.upper())
    # Inside of Annotated, what stands first is the first flag.
    given = [flag for flag in (info.default, *(info.param_decls or ())) if isinstance(flag, str) and flag[:1] == "-"]
    flags = ", ".join(given or [f"--{name.replace('_', '-')}"])
    return code(f"{flags}{_wanted(kind, info.metavar)}")


def _wanted(kind: Any, metavar: str | None) -> str:
    """What stands behind a flag; nothing behind a switch."""
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(one for one in get_args(kind) if one is not type(None))
    if kind is bool:
        return ""
    if metavar:
        return f" {metavar}"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return " " + "|".join(str(one.value) for one in kind)
    inner = get_args(kind)[0] if get_origin(kind) is list else kind
    return f" {getattr(inner, '__name__', 'value').upper().replace('STR', 'TEXT')}"


def _default(given: Any) -> str:
    if given is inspect.Parameter.empty:
        return "required"
    if given is None or given is False or given in ((), []):
        return ""
    return value(given.value if isinstance(given, enum.Enum) else given)


def _processes() -> Iterator[str]:
    yield "## python3 -m gateway\n"
    yield table(_HEAD, _flags(gateway()))
    (first, serve), *others = _commands(worker())
    known = [*_flags(serve)]
    yield f"## python3 -m worker_image {first}\n"
    yield table(_HEAD, known)
    for name, inner in others:
        yield f"## python3 -m worker_image {name}\n\nTakes what `{first}` takes of the model and the engine.\n"
        if own := [row for row in _flags(inner) if row not in known]:
            yield table(_HEAD, own)
    yield "## python3 -m controllers.model_cache\n"
    yield table(_HEAD, _flags(node_agent()))


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _flags(parser: argparse.ArgumentParser) -> Iterator[tuple[str, ...]]:
    for action in parser._actions:
        if action.help is not argparse.SUPPRESS and not _FOLDED & set(action.option_strings):
            yield code(_flag(action)), _default_of(action), _says(action)


def _flag(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest).upper()
    name = ", ".join(action.option_strings)
    if action.nargs == 0:
        return name
    if action.choices:
        return f"{name} {'|'.join(map(str, action.choices))}"
    return f"{name} {str(action.metavar or action.dest.upper()).strip('{}').replace(',', '|')}"


def _default_of(action: argparse.Action) -> str:
    if action.required or not action.option_strings:
        return "required"
    if action.nargs == 0 or set(action.option_strings) & _MACHINE.keys():
        return next((_MACHINE[flag] for flag in action.option_strings if flag in _MACHINE), "")
    return _default(action.default)


def _says(action: argparse.Action) -> str:
    """Without the default that the column beside it has; one that a sentence explains stays."""
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    return prose(re.sub(r" \((default: )?[^()]*\)$", "", text) if _default_of(action) else text)
