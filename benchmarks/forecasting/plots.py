"""A picture of one series: what came, what was forecast, and the 80 and 95 % intervals. Small SVG files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.forecasting.rolling import LONG_STEPS
from forecasting.refresh import refresh
from forecasting.series import Array, Series

SHOWN: Final = 4
"""Forecasts one after the other, up to the end of the series."""


def draw(series: Series, folder: Path) -> Path:
    """`forecasting-<name>.svg` in `folder`."""
    shown = min(SHOWN, len(series) // (2 * LONG_STEPS))
    first = len(series) - shown * LONG_STEPS
    hours = (np.arange(len(series)) - first) * series.step_s / 3600
    # Ids by a fixed salt and no date: the same data gives the same file.
    with mpl.rc_context({"svg.hashsalt": "foretide", "font.size": 8}):
        figure = Figure(figsize=(7, 2.6), layout="constrained")
        axes = figure.subplots()
        seen = slice(max(first - LONG_STEPS, 0), None)
        axes.plot(hours[seen], series.values[seen], color="black", linewidth=0.8)
        for origin in range(first, len(series), LONG_STEPS):
            forecast = refresh(series.first(origin), LONG_STEPS)
            ahead = hours[origin : origin + LONG_STEPS]
            _bands(axes, ahead, [forecast.quantile(level) for level in (0.025, 0.1, 0.5, 0.9, 0.975)])
        axes.set_xlabel("hours")
        axes.set_ylabel("requests/s")
        axes.set_title(f"{series.name}: measured (black), forecast every {LONG_STEPS} steps, 80 and 95 % intervals")
        axes.set_ylim(bottom=0)
        path = folder / f"forecasting-{''.join(c if c.isalnum() else '-' for c in series.name).lower()}.svg"
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    return path


def _bands(axes: mpl.axes.Axes, hours: Array, quantiles: list[Array]) -> None:
    lowest, low, median, high, highest = quantiles
    axes.fill_between(hours, lowest, highest, color="tab:blue", alpha=0.2, linewidth=0)
    axes.fill_between(hours, low, high, color="tab:blue", alpha=0.3, linewidth=0)
    axes.plot(hours, median, color="tab:blue", linewidth=1)
