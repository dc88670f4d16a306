"""The `foretide` command, also `kubectl foretide`. Errors that a person can act on are one line; others are bugs."""

from __future__ import annotations

import io
import sys

import typer

from cli import chat, diagnose, explain, replay, restart, silence, simulate, status, top
from cli.errors import CliError

app = typer.Typer(
    name="foretide",
    help="How the services are, why something happened, and what would happen.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("status")(status.command)
app.command("explain")(explain.command)
app.command("diagnose")(diagnose.command)
app.command("top")(top.command)
app.command("chat")(chat.command)
app.command("restart")(restart.command)
app.command("silence")(silence.command)
app.command("simulate")(simulate.command)
app.command("replay")(replay.command)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # A terminal or a file need not have all letters, such as →.
    try:
        app()
    except CliError as error:
        print(f"foretide: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            # `foretide replay … | head` is no mistake, and its status 1 says something else.
            sys.exit(0)
        raise
