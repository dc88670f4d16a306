"""`foretide chat`: asks a service through the gateway, as any client would, and shows the answer as it comes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer

from cli import kubectl
from cli.completing import services
from cli.completions import Model, answer_of
from cli.errors import CliError
from cli.fleet import named
from cli.http import checked
from cli.kubectl import OPERATOR_NAMESPACE, ContextOption, NamespaceOption, OperatorNamespaceOption
from cli.port_forward import forwarded

Json = dict[str, Any]

GATEWAY: Final = "foretide-gateway"


def command(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="The service.", autocompletion=services)],
    prompt: Annotated[
        str | None, typer.Argument(help="What to ask; left out, each line of the input is a turn.")
    ] = None,
    key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="API key of a Tenant.")] = None,
    url: Annotated[
        str | None,
        typer.Option(envvar="OPENAI_BASE_URL", help="Of the gateway, with /v1; else through a port-forward."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.", min=1)] = None,
    namespace: NamespaceOption = None,
    operator_namespace: OperatorNamespaceOption = OPERATOR_NAMESPACE,
    kube_context: ContextOption = None,
) -> None:
    """Ask a service and show its answer as it comes."""
    key = (key or "").strip()
    if not key:
        raise CliError("A key of a Tenant is needed: set OPENAI_API_KEY, or say --key.")
    if not (key.isascii() and key.isprintable()):
        raise CliError("The key holds a character that no key has, such as a line end. Copy it again: it was not sent.")
    services = kubectl.of(context, kube_context).objects("inferenceservices", namespace)
    name = (named("InferenceService", service, services).get("status") or {}).get("modelName")
    if not name:
        raise CliError(f"The operator has not said yet under which name clients reach '{service}'. See its status.")
    messages: list[Json] = [{"role": "system", "content": system}] if system else []
    with _gateway(url, kube_context, operator_namespace) as base:
        talk(Model(base, key, name, max_tokens), messages, turns(prompt))


@contextmanager
def _gateway(url: str | None, context: str | None, namespace: str) -> Iterator[str]:
    if url is None:
        with forwarded(context, namespace, GATEWAY, "http") as address:
            yield f"http://{address}/v1"
    else:
        yield checked("--url", url, "http://localhost:8080/v1")


def turns(prompt: str | None) -> Iterator[str]:
    """The prompt alone, or line after line until the input ends."""
    if prompt is not None:
        yield prompt
        return
    if sys.stdin is None:
        raise CliError("There is neither a prompt nor an input. Say what to ask after the service's name.")
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.readline()
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"The input cannot be read: {error}. Each line of it is a turn.") from error
        if not line:
            return
        if line.strip():
            yield line.strip()


def talk(model: Model, messages: list[Json], turns: Iterator[str]) -> None:
    """Each turn with those before it. A turn that fails ends it."""
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        said = []
        for piece in answer_of(model, messages, lambda text: print(text, file=sys.stderr)):
            said.append(piece)
            print(piece, end="", flush=True)
        print()
        messages.append({"role": "assistant", "content": "".join(said)})
