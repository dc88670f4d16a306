"""Which forecast a simulation gives to the policy: the operator's own where the trace can carry it.

The operator's forecast of a trace is made before any service is simulated, once for all of them. It takes minutes for a
trace of weeks, so its state is kept like that of a run.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cli.kept import Saver, cache_folder, restored, stopped
from cli.service_files import Subject
from cli.setting import ForecastBy, Foretelling, Load, Setting, asks_for_forecast
from controllers.plans.capacity import INPUT_WEIGHT
from forecasting.series import DAY_S
from forecasting.simulator.autoscalers.foretold import OperatorForecasts, counts_of
from forecasting.standing import Schedule

LEAST_S: Final = 2 * DAY_S
"""Of a trace for the operator's forecast, if nobody asks: who saw no day yet knows no time of day, and so half of the
trace at least is foretold by who did."""


def chosen(asked: ForecastBy | None, subjects: Sequence[Subject], seconds: int) -> Foretelling:
    """Without the forecasts themselves."""
    if not any(map(asks_for_forecast, subjects)):
        return Foretelling(None, "no service here scales by a forecast")
    if asked is not None:
        return Foretelling(asked, f"as --forecast {asked} asks")
    hours, least = seconds / 3600, LEAST_S / 3600
    if seconds >= LEAST_S:
        return Foretelling(ForecastBy.OPERATOR, f"the trace's {hours:.1f} h are at least {least:.0f} h")
    return Foretelling(ForecastBy.GROWTH, f"the trace's {hours:.1f} h are less than the {least:.0f} h that one needs")


def foretold(load: Load, setting: Setting, progress: Callable[[float], None], fresh: bool) -> Setting:
    """With the operator's forecasts, where they are wanted.

    Raises:
        CliError: a person stopped it.
    """
    if setting.foretelling.by is not ForecastBy.OPERATOR:
        return setting
    path = _path(load, setting)
    if fresh:
        path.unlink(missing_ok=True)
    found = restored(path)
    forecasts = found if isinstance(found, OperatorForecasts) else _begun(load, setting)
    saver = Saver(path, forecasts, progress)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in the operator: what a fit finds odd is in its intervals
            forecasts.run(saver)
    except KeyboardInterrupt as stop:
        raise stopped() from stop
    saver.save()  # A run that is stopped later need not wait for it again.
    return replace(setting, foretelling=replace(setting.foretelling, forecasts=forecasts))


def forget(load: Load, setting: Setting) -> None:
    """When all results are there."""
    _path(load, setting).unlink(missing_ok=True)


def _begun(load: Load, setting: Setting) -> OperatorForecasts:
    counts = counts_of(load.arrivals, load.requests, setting.start_s, Schedule().step_s)
    return OperatorForecasts(counts, INPUT_WEIGHT, setting.lead_s, setting.start_s, len(load.arrivals))


def _path(load: Load, setting: Setting) -> Path:
    said = f"{setting.start_s} {setting.lead_s} {load.arrivals.lengths.decode} {load.requests is not None}"
    data = load.arrivals.counts.tobytes() + load.arrivals.inputs.tobytes()
    return cache_folder() / f"{hashlib.sha256(said.encode() + data).hexdigest()[:24]}.forecast"
