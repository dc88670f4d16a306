"""From medians to rows and words. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.report import Better, Row, Words

OURS = "Foretide"
Medians = Mapping[str, Mapping[str, tuple[str, float]]]

GOALS: Mapping[str, tuple[float, str]] = {
    "CPU per request, 1 kB": (57.0, "Envoy with key and limit"),
    "CPU per request, 16 kB": (65.0, "Envoy with key and limit"),
    "requests a second of one core's CPU time, 1 kB": (17_000.0, "Envoy with key and limit"),
    "CPU per chunk, 64 streams": (35.0, "vllm-router"),
    "CPU per chunk, 256 streams": (28.0, "vllm-router"),
    "added time to first byte p50, 300 requests/s": (0.5, "Envoy with key and limit"),
    "added time to first byte p99, 300 requests/s": (2.0, "Envoy with key and limit"),
    "resident memory at rest": (60.0, "Envoy with key and limit"),
    "resident memory with 9,500 open streams": (380.0, "Envoy with key and limit"),
}
"""The goal of each metric, and the peer that stands beside it."""


def rows(found: Medians) -> list[Row]:
    """First the goals, each beside its peer; then everything beside every peer."""
    added = {name: _added(metrics, found.get("", {})) for name, metrics in found.items() if name}
    ours = added[OURS]
    made = [
        _row("the goals", metric, ours, added.get(peer), peer, goal)
        for metric, (goal, peer) in GOALS.items()
        if metric in ours
    ]
    for peer, theirs in added.items():
        if peer != OURS:
            made += [_row(f"beside {peer}", metric, ours, theirs, peer, None) for metric in ours if metric in theirs]
    return made


def _row(
    workload: str,
    metric: str,
    ours: Mapping[str, tuple[str, float]],
    theirs: Mapping[str, tuple[str, float]] | None,
    peer: str,
    goal: float | None,
) -> Row:
    unit, value = ours[metric]
    other = theirs.get(metric) if theirs else None
    better = Better.HIGHER if unit == "1/s" else Better.LOWER
    return Row(workload, metric, unit, round(value, 3), other and round(other[1], 3), other and peer, goal, better)


def _added(
    metrics: Mapping[str, tuple[str, float]], bare: Mapping[str, tuple[str, float]]
) -> dict[str, tuple[str, float]]:
    """Latencies less those of the backend alone."""
    found = {}
    for metric, (unit, value) in metrics.items():
        if metric in bare:
            found[f"added {metric}"] = (unit, value - bare[metric][1])
        else:
            found[metric] = (unit, value)
    return found


def words(found: Medians, load: float) -> Words:
    missing = [peer for peer in {peer for _, peer in GOALS.values()} if peer not in found]
    return Words(
        title="The gateway beside other proxies",
        command="make bench-gateway",
        about=[
            "What passing on a request and a streamed token costs in CPU time (user and system, of all the proxy's "
            "processes), the time that it adds, and memory. One process on a core of its own; load generator and "
            "backend, both ours in Go, on another. Foretide has everything on: key, quota, fair queue, scoring, token "
            "journal, metrics. Envoy checks a key and a rate limit; the others pass on. Every answer is checked, "
            "every stream chunk by chunk. Medians over rounds in which the proxies take turns.",
        ],
        notes=[
            "`requests a second of one core's CPU time` is the inverse of CPU per request: on a shared machine the "
            "requests of a second of wall-clock time would measure the neighbours.",
            "Foretide runs on the interpreter of its image, Debian's python3, where the machine has it in our version: "
            "it is optimised, which those that were built from source often are not.",
            "No peer of this page journals tokens, shares by token, or moves a stream to another worker.",
            f"The load average at the end was {load:.1f}. Beside other work CPU times grow for everybody (on a quiet "
            "machine Envoy with key and limit takes 57 µs a request): read the ratios, not the microseconds.",
            *([f"Could not be installed here: {', '.join(sorted(missing))}."] if missing else []),
        ],
    )
