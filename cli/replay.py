"""`foretide replay`: decides recorded decisions again, with the policy as it is now, and says why each came out so."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.errors import CliError
from cli.output import print_utf8
from forecasting.errors import ForecastingError
from forecasting.policy import Direction, RecordInvalid, ScalingDecision, from_json, plan, to_plain

SIGNS = {Direction.UP: "↑", Direction.DOWN: "↓", Direction.HOLD: " "}


@dataclass(frozen=True, slots=True)
class Again:
    """A recorded decision and the same one, decided now."""

    line: int
    recorded: ScalingDecision
    now: ScalingDecision

    @property
    def is_same(self) -> bool:
        """Whether today's policy asks for the same number for the same reason."""
        return (self.recorded.replicas, self.recorded.reason) == (self.now.replicas, self.now.reason)


def command(
    file: Annotated[str, typer.Argument(help="Decisions as JSON lines (.gz too); - reads standard input.")],
    changes: Annotated[bool, typer.Option(help="Only decisions that changed the number.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show why every replica count was what it was. Exit status 1 when the policy decides differently now."""
    differs = seen = 0
    for again in decide_again(file, _lines(file)):
        seen += 1
        differs += not again.is_same
        if changes and again.recorded.direction is Direction.HOLD and again.is_same:
            continue
        if as_json:
            print_utf8(_as_json(again))
        else:
            print(_as_text(again))
    if not seen:
        raise CliError(f"{file}: no decision in it. Name a file of recorded decisions, or - for standard input.")
    if differs:
        print(f"{differs} decisions differ from what was recorded.", file=sys.stderr)
        raise typer.Exit(1)


def decide_again(name: str, lines: Iterable[str]) -> Iterator[Again]:
    """Each recorded decision with the one that `plan` makes of its inputs now.

    Raises:
        CliError: a line is no recorded decision; says which.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            recorded = from_json(line)
            now = plan(recorded.inputs)
        except RecordInvalid as error:
            raise CliError(f"{name}, line {number}: {error}.") from error
        except (ForecastingError, ArithmeticError, ValueError) as error:
            raise CliError(f"{name}, line {number}: its numbers cannot be decided on: {error}.") from error
        yield Again(number, recorded, now)


def _lines(file: str) -> Iterator[str]:
    path = Path(file)
    try:
        if file == "-":
            yield from sys.stdin or ()
        elif path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig") as lines:
                yield from lines
        else:
            with path.open(encoding="utf-8-sig") as plain:
                yield from plain
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise CliError(f"{file}: {error}. Name a file of recorded decisions, or - for standard input.") from error


def _as_text(again: Again) -> str:
    recorded = again.recorded
    when = _when(recorded.inputs.now_s)
    head = f"{when} {recorded.inputs.current:>4} → {recorded.replicas:<4}{SIGNS[recorded.direction]}"
    said = f"{head} {recorded.reason.value}: {recorded.message}"
    if again.is_same:
        return said
    return f"{said}\n{'':>20} now  → {again.now.replicas:<4}  {again.now.reason.value}: {again.now.message}"


def _when(now_s: float) -> str:
    """As in the log; a time that no calendar has is shown as it is."""
    try:
        return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{now_s:.0f} s"


def _as_json(again: Again) -> str:
    said = {"line": again.line, "same": again.is_same, "recorded": to_plain(again.recorded), "now": to_plain(again.now)}
    return json.dumps(said, ensure_ascii=False)
