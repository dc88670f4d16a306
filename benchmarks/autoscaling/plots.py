"""One Pareto plot a cell: attainment over GPU-hours, ours drawn thick, each baseline in a colour of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: no screen is needed
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.autoscaling.cell import Cell
from benchmarks.autoscaling.families import OURS, PERFECT
from benchmarks.autoscaling.pareto import front
from benchmarks.autoscaling.rows import families, of_family

NINES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)


def plot(cell: Cell, folder: Path) -> Path:
    """Write `autoscaling-<workload>-<cold start>.svg`; attainment is drawn as the logarithm of what is missed."""
    figure, axes = plt.subplots(figsize=(8.4, 5.2))
    axes.set_prop_cycle(color=list(matplotlib.colormaps["tab20"](range(20))))
    for family in families(cell):
        _line(axes, cell, family, linewidth=1.0, marker=".", markersize=5)
    _line(axes, cell, PERFECT, color="black", linestyle=":", linewidth=1.2)
    _line(axes, cell, OURS, color="#d1495b", linewidth=2.4, marker="o", markersize=5)
    if cell.upper_bound:
        axes.axvline(cell.upper_bound, color="black", linewidth=0.8, linestyle="--")
        axes.annotate("UB", (cell.upper_bound, 0.03), xycoords=("data", "axes fraction"), fontsize=8)
        axes.set_xlim(0.9 * cell.upper_bound, 2.2 * cell.upper_bound)
    axes.set_yscale("log")
    axes.set_ylim(0.2, 5e-5)
    axes.set_yticks([1 - each for each in NINES], [f"{each:.4g}" for each in (100 * n for n in NINES)])
    axes.set_ylabel("requests that met TTFT and TPOT (%)")
    axes.set_xlabel("GPU-hours over the test days")
    axes.set_title(f"{cell.workload}, cold start {cell.cold_start_s:.0f} s", fontsize=10)
    axes.grid(True, which="major", linewidth=0.3)
    axes.legend(fontsize=7, ncols=2, loc="lower right")
    slug = "".join(each if each.isalnum() else "-" for each in cell.workload.lower()).replace("--", "-").strip("-")
    path = folder / f"autoscaling-{slug}-{cell.cold_start_s:.0f}s.svg"
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"svg.hashsalt": "foretide"}):
        figure.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
    return path


def _line(axes: Axes, cell: Cell, family: str, **style: Any) -> None:
    line = front(of_family(cell, family))
    if line:
        missed = [max(1 - each.attainment, 1e-5) for each in line]
        axes.plot([each.gpu_hours for each in line], missed, label=family, **style)
