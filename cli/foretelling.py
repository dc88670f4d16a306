"""Which forecast a simulation gives to the policy: the operator's own where the trace can carry it.

The operator's forecast of a trace is made before any service is simulated, once for all of them. It takes minutes for a
trace of weeks, so its state is kept like that of a run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from cli import kept
from cli.kept import Saver, place_of, restored, stopped
from cli.service_files import Subject
from cli.setting import ForecastBy, Foretelling, Load, Setting, asks_for_forecast
from controllers.plans.capacity import INPUT_WEIGHT
from forecasting import near
from forecasting.counts import joined
from forecasting.series import DAY_S
from forecasting.simulator.autoscalers.foretold import OperatorForecasts, counts_of
from forecasting.standing import Schedule

LEAST_S: Final = DAY_S
"""Of history half-way through the trace, for the operator's forecast if nobody asks: who saw no day yet knows no time
of day, and so half of the trace at least is foretold by who did."""


def chosen(asked: ForecastBy | None, subjects: Sequence[Subject], load: Load) -> Foretelling:
    """Without the forecasts themselves."""
    if not any(map(asks_for_forecast, subjects)):
        return Foretelling(None, "no service here scales by a forecast")
    if asked is not None:
        return Foretelling(asked, f"as --forecast {asked} asks")
    known_s = past_s(load) + len(load.arrivals) / 2
    known, least = f"{known_s / 3600:.1f} h of history are known half-way through", f"{LEAST_S / 3600:.0f} h"
    if known_s >= LEAST_S:
        return Foretelling(ForecastBy.OPERATOR, f"{known}, at least {least}")
    return Foretelling(ForecastBy.GROWTH, f"{known}, less than the {least} that one needs")


def past_s(load: Load) -> float:
    """From the first count before the trace to its beginning; 0 where nothing is known."""
    if load.past is None or np.isnan(load.past.arrivals).all():
        return 0.0
    unknown = int(np.argmin(np.isnan(load.past.arrivals)))
    return (len(load.past.arrivals) - unknown) * load.past.step_s


def foretold(load: Load, setting: Setting, progress: Callable[[float], None], fresh: bool) -> Setting:
    """With the operator's forecasts, where they are wanted.

    Raises:
        CliError: a person stopped it.
    """
    if setting.foretelling.by is not ForecastBy.OPERATOR:
        return setting
    path = place(load, setting)
    if fresh:
        kept.forget(path)
    found = restored(path)
    forecasts = found if isinstance(found, OperatorForecasts) else _begun(load, setting)
    saver = Saver(path, forecasts, progress)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in the operator: what a fit finds odd is in its intervals
            forecasts.run(saver)
    except KeyboardInterrupt as stop:
        raise stopped(path) from stop
    saver.save()  # A run that is stopped later need not wait for it again.
    return replace(setting, foretelling=replace(setting.foretelling, forecasts=forecasts))


def forget(load: Load, setting: Setting) -> None:
    """When all results are there."""
    kept.forget(place(load, setting))


def _begun(load: Load, setting: Setting) -> OperatorForecasts:
    counts = counts_of(load.arrivals, load.requests, setting.start_s, Schedule().step_s)
    counts = joined(load.past, counts, keep_from_s=0.0)
    minutes = counts_of(load.arrivals, load.requests, setting.start_s, near.STEP_S)
    return OperatorForecasts(counts, minutes, INPUT_WEIGHT, setting.lead_s, setting.start_s, len(load.arrivals))


def place(load: Load, setting: Setting) -> Path:
    """Where the state of the forecasts lies."""
    return place_of("forecast", load, setting.start_s, setting.lead_s)
