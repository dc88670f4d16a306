"""Results of a simulation for a terminal of 80 columns, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from cli.foretelling import past_s
from cli.service_files import Subject
from cli.setting import ForecastBy, Load, Setting, asks_for_forecast
from cli.simulation import Result
from forecasting.series import DAY_S
from forecasting.simulator.many import TICK_S
from forecasting.simulator.world import Slo

WIDTH = 80


def rows_of(result: Result, setting: Setting) -> list[tuple[str, str]]:
    """What is said of a service, in order."""
    outcome, slo = result.outcome, result.subject.slo
    by = _by(result, setting)
    return [
        ("attainment", f"{outcome.attainment:.2%} (target {slo.attainment:.0%})"),
        ("worst 10 minutes", f"{outcome.worst_window:.1%}"),
        ("TTFT p99", _seconds(outcome.ttft_p99_s, slo)),
        ("TPOT p99", _milliseconds(outcome.tpot_p99_s, slo)),
        ("replicas, mean", f"{outcome.mean_replicas:.2f}"),
        ("replicas, peak", f"{outcome.peak_replicas}"),
        ("scale ups, downs", f"{outcome.scale_ups}, {outcome.scale_downs}"),
        ("GPU-hours", f"{outcome.gpu_hours:.1f}"),
        ("cost on demand", f"{result.cost:.2f}"),
        ("cost, best mix", f"−{result.mix.saving:.0%}"),
        ("its mix", f"{result.mix.reserved} reserved, {result.mix.spot} spot, {result.mix.on_demand} on demand"),
        ("forecast", by or "none"),
        ("finished", f"{outcome.finished:,.0f} of {outcome.requests:,.0f}"),
    ]


def _seconds(ttft_s: float | None, slo: Slo) -> str:
    return "not known" if ttft_s is None else f"{ttft_s:.2f} s ({_target(f'{slo.ttft_s:g} s', slo)})"


def _milliseconds(tpot_s: float | None, slo: Slo) -> str:
    return "not known" if tpot_s is None else f"{1e3 * tpot_s:.1f} ms ({_target(f'{1e3 * slo.tpot_s:g} ms', slo)})"


def _target(bound: str, slo: Slo) -> str:
    return "no target" if bound.startswith("inf") else f"target {bound} at p{100 * slo.attainment:g}"


def about(load: Load, setting: Setting, results: Sequence[Result]) -> list[str]:
    """What was simulated, in sentences."""
    arrivals, profile = load.arrivals, setting.profile
    hours = len(arrivals) / 3600
    how = (
        "request by request"
        if results[0].exact
        else "by the second (fluid: no percentiles, attainment within about 2 points)"
    )
    return [
        f"{load.name}: {arrivals.counts.sum():,.0f} requests in {hours:.1f} h, {how}.",
        f"Profile: {profile.model} on {profile.accelerator}; {results[0].capacity.message}.",
        f"Cold start: {setting.cold_start.load_s:.0f} s ± {setting.cold_start.spread:.0%}.",
        *(_default(result.subject) for result in results if result.subject.default_because),
        _forecast(load, setting),
    ]


def _default(subject: Subject) -> str:
    slo = subject.slo
    targets = f"TTFT {slo.ttft_s:g} s and TPOT {1e3 * slo.tpot_s:g} ms for {slo.attainment:.0%} of requests"
    return f"{subject.label}: {subject.default_because}, so the targets are {targets}."


def _forecast(load: Load, setting: Setting) -> str:
    """Whose it was, why, and whether it had its say."""
    foretelling = setting.foretelling
    if foretelling.by is None:
        return f"Forecast: none; {foretelling.because}."
    if foretelling.forecasts is None:
        return (
            f"Forecast: growth in the last minutes of the trace, not the operator's; {foretelling.because}."
            " The operator's wants more GPU-hours and is late less often."
        )
    forecasts, past_days = foretelling.forecasts, past_s(load) / DAY_S
    past = f"{past_days:.1f} days before the trace and " if past_days else ""
    shares = ", ".join(f"{reason} {share:.1%}" for reason, share in forecasts.shares().items())
    return (
        f"Forecast: the operator's; {foretelling.because}. Made anew every {forecasts.schedule.refresh_s / 60:g} min"
        f" from {past}the trace so far, {forecasts.looks} times; of the time {shares}."
    )


def print_text(console: Console, load: Load, setting: Setting, results: Sequence[Result]) -> None:
    """A column a service, beside each other."""
    for line in about(load, setting, results):
        console.print(line)
    table = Table(width=min(WIDTH, console.width), show_edge=False, pad_edge=False)
    table.add_column("")
    for result in results:
        table.add_column(result.subject.label, overflow="fold")
    for cells in zip(*(rows_of(result, setting) for result in results), strict=True):
        table.add_row(cells[0][0], *(cell[1] for cell in cells))
    console.print(table)


def to_json(load: Load, setting: Setting, results: Sequence[Result]) -> str:
    """Everything, for programs."""
    return json.dumps(
        {
            "trace": {"name": load.name, "seconds": len(load.arrivals), "requests": float(load.arrivals.counts.sum())},
            "profile": asdict(setting.profile),
            "coldStart": asdict(setting.cold_start),
            "forecast": _plain_forecast(load, setting),
            "services": [_plain(result, setting) for result in results],
        },
        indent=2,
        ensure_ascii=False,
    )


def _by(result: Result, setting: Setting) -> ForecastBy | None:
    return setting.foretelling.by if asks_for_forecast(result.subject) else None


def _plain_forecast(load: Load, setting: Setting) -> dict[str, object]:
    foretelling = setting.foretelling
    said: dict[str, object] = {"by": foretelling.by, "because": foretelling.because}
    if foretelling.forecasts is not None:
        forecasts = foretelling.forecasts
        said["looks"], said["everySeconds"] = forecasts.looks, forecasts.schedule.refresh_s
        said["pastSeconds"] = past_s(load)
        said["shareOfTime"] = dict(forecasts.shares())
    return said


def _plain(result: Result, setting: Setting) -> dict[str, object]:
    subject = result.subject
    return {
        "name": subject.name,
        "namespace": subject.namespace,
        "from": subject.label,
        "slo": {name: None if value == math.inf else value for name, value in asdict(subject.slo).items()},
        "sloDefaultBecause": subject.default_because,
        "exact": result.exact,
        "forecast": _by(result, setting),
        "outcome": asdict(result.outcome),
        "cost": result.cost,
        "mix": asdict(result.mix),
        "course": {"stepSeconds": TICK_S, "wanted": result.wanted, "ready": result.ready},
    }
