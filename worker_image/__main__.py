"""`python -m worker_image serve PATH`: the worker's command line. Heavy imports wait until a subcommand needs them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from crds.contract import WORKER_EXIT_REFUSED
from worker_image.errors import CheckpointError, EngineError, SettingsError
from worker_image.logs import configure, report_fatal
from worker_image.settings import (
    add_bench_arguments,
    add_model_arguments,
    add_serve_arguments,
    model_settings,
    serve_settings,
)

EXIT_ENGINE_ENDED = 1


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    configure(arguments.log_format)
    try:
        return _run(arguments.run(arguments))
    except (CheckpointError, SettingsError) as error:
        report_fatal(str(error))
        return WORKER_EXIT_REFUSED
    except EngineError as error:
        report_fatal(str(error))
        return EXIT_ENGINE_ENDED


def _run(main_coroutine: Coroutine[Any, Any, int]) -> int:
    import uvloop

    return uvloop.run(main_coroutine)


class Parser(argparse.ArgumentParser):
    """Wrong flags are one sentence, where other refusals go too."""

    def error(self, message: str) -> NoReturn:
        configure("text")
        report_fatal(f"{message}. '{self.prog} --help' lists the flags.")
        sys.exit(WORKER_EXIT_REFUSED)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m worker_image", description="Serve a language model, talk with it, or measure it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _command(commands, "serve", "answer the OpenAI API over HTTP", add_serve_arguments, _serve)
    _command(commands, "chat", "talk with the model in the terminal", add_model_arguments, _chat)
    _command(commands, "bench", "measure this machine's speed with the model", add_bench_arguments, _bench)
    return parser


def _command(
    commands: Any,
    name: str,
    text: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], Coroutine[Any, Any, int]],
) -> None:
    command = commands.add_parser(name, help=text, description=text)
    add_arguments(command)
    command.set_defaults(run=run)


def _serve(arguments: argparse.Namespace) -> Coroutine[Any, Any, int]:
    from worker_image.server.serve import serve

    return serve(serve_settings(arguments))


def _chat(arguments: argparse.Namespace) -> Coroutine[Any, Any, int]:
    from worker_image.terminal.chat import chat

    return chat(model_settings(arguments))


def _bench(arguments: argparse.Namespace) -> Coroutine[Any, Any, int]:
    from worker_image.terminal.bench import bench

    asked = (arguments.requests, arguments.prompt_tokens, arguments.output_tokens)
    return bench(model_settings(arguments), *asked, arguments.profile)


if __name__ == "__main__":
    sys.exit(main())
