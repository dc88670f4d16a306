"""The `foretide` command. Errors that a person can act on are one line; everything else is a bug with its traceback."""

from __future__ import annotations

import sys

import typer

from cli import replay, simulate
from cli.errors import CliError

app = typer.Typer(
    name="foretide",
    help="What would happen, and why something did.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("simulate")(simulate.command)
app.command("replay")(replay.command)


def main() -> None:
    """The console script."""
    try:
        app()
    except CliError as error:
        print(f"foretide: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # `foretide replay … | head` is no mistake.
        sys.stderr.close()
        sys.exit(0)
