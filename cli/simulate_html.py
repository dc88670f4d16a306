"""The same results as one HTML file that needs nothing else: a table and plots of load and replicas over time."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")  # before pyplot: no screen is needed
import matplotlib.pyplot as plt
import numpy as np

from cli.setting import Load, Setting
from cli.simulate_text import about, rows_of
from cli.simulation import Result
from forecasting.series import Array
from forecasting.simulator.many import TICK_S

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1.5rem 0; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #8886; vertical-align: top; }
figure { margin: 1.5rem 0; background: #fff; border-radius: 6px; padding: .5rem; }
svg { width: 100%; height: auto; }
"""


def to_html(load: Load, setting: Setting, results: Sequence[Result]) -> str:
    """The file's content."""
    heads = "".join(f'<th scope="col">{html.escape(result.subject.label)}</th>' for result in results)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(cells[0][0])}</th>'
        + "".join(f"<td>{html.escape(cell[1])}</td>" for cell in cells)
        + "</tr>"
        for cells in zip(*(rows_of(result, setting) for result in results), strict=True)
    )
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in about(load, setting, results))
    plots = "".join(
        f"<figure>{_plot(load, result)}<figcaption>{html.escape(result.mix.message)}</figcaption></figure>"
        for result in results
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>foretide simulate</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>What would have happened</h1>{lines}"
        f'<table><thead><tr><th scope="col">measure</th>{heads}</tr></thead><tbody>{rows}</tbody></table>{plots}'
        "</body></html>\n"
    )


def _plot(load: Load, result: Result) -> str:
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 4.6), sharex=True, layout="constrained")
    seconds = len(load.arrivals)
    every = max(seconds // 1200, 1)
    above.plot(_hours(every, seconds), _means(load.arrivals.counts, every), color="#30638e", linewidth=0.9)
    above.set_ylabel("requests/s")
    above.set_title(result.subject.label, fontsize=10, parse_math=False)
    for values, label, style in ((result.wanted, "asked for", "-"), (result.ready, "ready", ":")):
        below.step(np.arange(len(values)) * TICK_S / 3600, values, style, where="post", label=label, linewidth=1.1)
    below.set_ylabel("replicas")
    below.set_xlabel("hours")
    below.set_ylim(bottom=0)
    below.legend(fontsize=8)
    out = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "foretide"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def _means(values: Array, every: int) -> Array:
    whole = len(values) // every * every
    means: Array = values[:whole].reshape(-1, every).mean(axis=1)
    return means


def _hours(every: int, seconds: int) -> Array:
    hours: Array = np.arange(seconds // every) * every / 3600
    return hours
