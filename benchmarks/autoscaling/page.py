"""The words around the numbers: what was replayed, how it was tuned, and what not to read into it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.autoscaling.cell import TUNED_FOR, Cell
from benchmarks.report import Words


def words(cells: Sequence[Cell], plots: Sequence[str]) -> Words:
    """The page of these cells; `plots` are file names beside it."""
    return Words(
        title="Autoscaling on replayed traces",
        command="make bench-autoscaling",
        about=(
            "Every autoscaler meets the same requests, cold starts and late metrics (15 s scrapes, read at least 15 s"
            " late), with the same profile (Llama-3.1-8B, bf16, one H100 a replica), router and limits (1–100"
            " replicas). A request is good when its first token comes within 1 s and the further ones within 50 ms"
            " each on average; requests that do not finish are not good.",
            _setting(cells[0]),
            "Foretide's settings are what the operator makes of `spec.scaling` and of the share that the SLA promises"
            " (headroom by a smaller `tokensPerSecond`, the delay is `scaleDownDelay`), and its forecast is the"
            " operator's own over the trace, as [`foretide simulate`](../simulate.md#whose-forecast) makes it.",
            "The runs are by the fluid mode of the simulator (one-second steps), which the tests hold against the"
            " exact, event-driven one. Cold starts are the load of the named length ± 10 % from a warm pool of nodes.",
            *(f"![attainment over GPU-hours]({name})" for name in plots),
        ),
        notes=(
            "**UB** is a clairvoyant schedule with the same cold starts and drains, found by search and pruning: near"
            " the best, not proven to be. **Lower bound** is bare work over the most that a replica carries.",
            "GPU-hours at an attainment are read off a family's front between two tested settings; a family that"
            " cannot reach it has no number and its best is named.",
            "The worst ten minutes are of those that have at least a tenth of the mean requests.",
            "`perfect forecast + our policy` is told the future: its distance to us is what forecasting costs, its"
            " distance to UB what the policy costs.",
            "The peers' algorithms are written anew from their documentation and run in this simulator, not as the"
            " peers' programs. 37 all-zero windows of m-small are gaps in the collection and carry the mean of the"
            " windows around them.",
            "Few seeds and days widen what chance can do; the intervals by days say by how much. Without options the"
            " command does the whole study: five seeds, tuned on days 1–7, tested on days 8–14. What an earlier run"
            " finished is not done again.",
        ),
    )


def _setting(cell: Cell) -> str:
    levels = ", ".join(f"{100 * each:g}" for each in TUNED_FOR)
    tested = (
        f"with {cell.seeds} seed{'s' if cell.seeds > 1 else ''}; about 30 settings a family; tested are those that were"
        f" cheapest for {levels} % on the tuning days."
    )
    if not cell.workload.startswith("ServeGen"):
        return (
            f"Setting of this run: the trace {cell.workload}, never compressed in time. Tuned on {cell.tune_days:.2g}"
            f" days with a seed of its own, tested on {cell.test_days:.2g} days {tested}"
        )
    return (
        "Setting of this run: ServeGen's client windows, each request kept with a fixed probability (Bernoulli) so that"
        " the mean fleet is as named, never compressed in time; lengths drawn from the Azure conversation trace. Tuned"
        f" on {cell.tune_days:g} of the days 1–7 with a seed of its own, tested on {cell.test_days:.3g} of the days"
        f" 8–14 {tested}"
    )
