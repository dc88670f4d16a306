"""`foretide simulate`: what an edit would have given on a load that was, before it is applied."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cli.errors import CliError
from cli.foretelling import chosen, foretold, forget
from cli.output import print_utf8
from cli.prometheus import client_of, read_range
from cli.service_files import Subject, read_services
from cli.setting import ForecastBy, Load, Setting
from cli.simulate_text import WIDTH, print_text, to_json
from cli.simulation import EXACT_MOST, Result, check, simulate
from cli.trace_files import read_trace
from forecasting.cost import Prices
from forecasting.errors import BadSetting
from forecasting.profile import LLAMA_8B_H100, Profile, profile_from_json
from forecasting.simulator.arrivals import lengths_of, per_second
from forecasting.simulator.requests import Requests
from forecasting.simulator.servegen import Clients, seconds_of
from forecasting.simulator.world import ColdStart, Slo

A_MONDAY = "2026-03-02T00:00"
YEARS = range(1970, 9901)
"""In which a trace may begin: one of ten years still ends within what calendars know."""


class Output(StrEnum):
    """How results are written."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the load comes from."""

    trace: Path | None
    prometheus: str | None
    hours: float
    share: float
    lengths: Path | None
    seed: int


def command(
    file: Annotated[list[Path], typer.Option("-f", "--file", help="InferenceService YAML; repeat to compare edits.")],
    trace: Annotated[Path | None, typer.Option(help="CSV arrival_s,input_tokens,output_tokens or a trace.")] = None,
    prometheus: Annotated[str | None, typer.Option(help="URL of a Prometheus that scrapes the gateways.")] = None,
    hours: Annotated[float, typer.Option(help="With --prometheus: how far back.")] = 24.0,
    profile: Annotated[Path | None, typer.Option(help="Profile of model and accelerator (JSON).")] = None,
    cold_start: Annotated[float, typer.Option(help="Seconds until a new replica serves.")] = 180.0,
    share: Annotated[float, typer.Option(help="Keep each request of the trace with this probability.")] = 1.0,
    lengths: Annotated[Path | None, typer.Option(help="Trace to draw token lengths from, for one without.")] = None,
    price: Annotated[float, typer.Option(help="Price of a GPU-hour on demand.")] = 1.0,
    start: Annotated[str, typer.Option(help="When the trace begins (UTC), for schedules.")] = A_MONDAY,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)] = 0,
    forecast: Annotated[
        ForecastBy | None, typer.Option(help="Whose forecast; the operator's if left out and the trace is long enough.")
    ] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="text, json or html.")] = Output.TEXT,
    fresh: Annotated[bool, typer.Option(help="Forget an interrupted run.")] = False,
) -> None:
    """Replay a load and say what SLO attainment, cost and replicas a service would have had."""
    if (trace is None) == (prometheus is None):
        raise CliError("Give either --trace FILE or --prometheus URL: one load is needed.")
    for name, value, least, most in (
        ("--hours", hours, 1 / 60, 8784.0),
        ("--cold-start", cold_start, 0.0, 86_400.0),
        ("--price", price, 0.0, 1e6),
        ("--share", share, 1e-9, 1.0),
    ):
        if not least <= value <= most:
            raise CliError(f"{name} is {value:g}; a number from {least:.3g} to {most:g} is needed.")
    subjects = [subject for path in file for subject in read_services(path, Slo())]
    if prometheus is not None and len(named := sorted({f"{each.namespace}/{each.name}" for each in subjects})) > 1:
        raise CliError(f"--prometheus gives the load of one service; -f names {', '.join(named)}. Name edits of one.")
    source = Source(trace, prometheus, hours, share, lengths, seed)
    load, begins_s = load_of(source, subjects[0], unix_of(start))
    foretelling = chosen(forecast, subjects, load)
    setting = Setting(_profile(profile), ColdStart(cold_start), Prices(), seed, price, begins_s, foretelling)
    setting, results = _run(subjects, load, setting, fresh)
    _write(output, load, setting, results)


def load_of(source: Source, subject: Subject, start_s: float) -> tuple[Load, float]:
    """The load, and the Unix time at which it begins.

    Raises:
        CliError: it cannot be read; says why.
    """
    if source.prometheus is not None:
        now_s = time.time() // 60 * 60
        client = client_of(source.prometheus)
        found = read_range(client, source.prometheus, subject.namespace, subject.name, now_s, source.hours)
        gaps = f" ({found.gaps} minutes without a sample)" if found.gaps else ""
        load = _of_requests(f"{subject.namespace}/{subject.name} in Prometheus{gaps}", found.requests, source)
        load = replace(load, past=found.past.scaled(source.share))
        return load, now_s - source.hours * 3600
    assert source.trace is not None, "command checks that one of the two is given"
    read = read_trace(source.trace)
    if isinstance(read, Clients):
        return _of_clients(source.trace.name, read, source), start_s
    return _of_requests(source.trace.name, read, source), start_s


def _of_requests(name: str, requests: Requests, source: Source) -> Load:
    try:
        kept = requests.thinned(source.share, source.seed)
        return Load(name, per_second(kept), kept if len(kept) <= EXACT_MOST else None)
    except BadSetting as error:
        raise CliError(f"{name}: {error}") from error


def _of_clients(name: str, clients: Clients, source: Source) -> Load:
    if source.lengths is None:
        raise CliError(f"{name} has no token lengths. Name a trace to draw them from with --lengths FILE.")
    lent = read_trace(source.lengths)
    if isinstance(lent, Clients):
        raise CliError(f"{source.lengths} has no token lengths either; name a trace of single requests.")
    lengths = lengths_of(lent.input_tokens.astype(np.float64), lent.output_tokens.astype(np.float64))
    arrivals = seconds_of(clients, source.share, lent.input_tokens, lengths, source.seed)
    if not arrivals.counts.any():
        raise CliError(
            f"{name} holds no request of which --share {source.share:g} keeps any; nothing can be simulated."
        )
    return Load(name, arrivals, None)


def _profile(path: Path | None) -> Profile:
    if path is None:
        return LLAMA_8B_H100
    try:
        return profile_from_json(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(
            f"{path}: {getattr(error, 'strerror', None) or error}. Name a profile file, or leave --profile out."
        ) from error
    except BadSetting as error:
        raise CliError(str(error)) from error


def unix_of(start: str) -> float:
    """UTC, unless it names a zone."""
    try:
        at = datetime.fromisoformat(start)
        begins_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise CliError(f"--start is {start!r}; a time such as {A_MONDAY} is needed.") from error
    if at.year not in YEARS:
        raise CliError(f"--start is {start!r}; a year from {YEARS[0]} to {YEARS[-1]} is needed.")
    return begins_s


def _run(subjects: list[Subject], load: Load, setting: Setting, fresh: bool) -> tuple[Setting, list[Result]]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        if setting.foretelling.by is ForecastBy.OPERATOR:
            for subject in subjects:
                check(subject, load, setting)
            setting = foretold(load, setting, _shown(bar, "the operator's forecasts"), fresh)
        results = [simulate(subject, load, setting, _shown(bar, subject.label), fresh) for subject in subjects]
    forget(load, setting)
    return setting, results


def _shown(bar: Progress, what: str) -> Callable[[float], None]:
    task = bar.add_task(what, total=1.0)
    return lambda done: bar.update(task, completed=done)


def _write(output: Output, load: Load, setting: Setting, results: list[Result]) -> None:
    if output is Output.JSON:
        print_utf8(to_json(load, setting, results))
    elif output is Output.HTML:
        from cli.simulate_html import to_html  # matplotlib takes a second, which no other command should pay

        print_utf8(to_html(load, setting, results))
    else:
        width = None if Console().is_terminal else WIDTH
        print_text(Console(width=width, markup=False, emoji=False, highlight=False), load, setting, results)
