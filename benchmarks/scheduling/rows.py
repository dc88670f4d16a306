"""Rows of the results: ours beside the peer that it should be compared with. Arithmetic over finished runs only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Many
from dataclasses import replace
from statistics import mean

from benchmarks.report import Better, Row
from benchmarks.scheduling.machine import Fate, Run
from benchmarks.scheduling.measures import (
    attainment,
    fairness,
    goodput_per_s,
    objective,
    of_class,
    quantile,
    tpot_s,
    ttft_s,
    utilisation,
)
from forecasting.profile import Profile
from worker_image.engine.scheduler.objective import LEAST_FAIRNESS, LEAST_UTILISATION, MOST_DELAY
from worker_image.engine.scheduler.settings import PolicyName
from worker_image.engine.standing import CLASS_TTFT_S, CLASSES

PEERS = {
    PolicyName.FCFS: "vLLM fcfs",
    PolicyName.FEEDBACK: "vLLM fcfs",
    PolicyName.FAIR: "VTC as published",
}
"""The class-blind beside the class-blind; all others beside vLLM's priority policy."""
FLOOD_BEGINS = 0.25
SETTLED = 0.94
"""Requests of the last moments could not be served whatever was done."""
HOST_GOAL_MS = 0.25
"""The device runs such a step in 6 ms or more."""

Runs = Mapping[str, Many[Run]]
Of = Callable[[Run], float | None]


def peer_of(policy: str) -> str:
    return PEERS.get(PolicyName(policy), "vLLM priority")


def class_rows(name: str, runs: Runs, profile: Profile) -> list[Row]:
    rows = [_alone_row(name, runs[PolicyName.FCFS], profile)]
    for policy in PolicyName:
        rows += _policy_rows(f"{name}: {policy.value} beside {peer_of(policy)}", policy, runs)
    return rows


def _alone_row(name: str, runs: Many[Run], profile: Profile) -> Row:
    """What no policy can exceed: the prompt's own time on a replica that does nothing else."""
    asked = [fate.asked for run in runs for fate in of_class(run, 0)]
    alone = [profile.iteration_s(0, each.input_tokens, each.input_tokens, 1) for each in asked]
    share = mean(seconds <= CLASS_TTFT_S[0] for seconds in alone)
    return Row(f"{name}: the most there is", "P0 that would be in time if nobody else were there", "share", share)


def _policy_rows(workload: str, policy: str, runs: Runs) -> list[Row]:
    peer, higher = peer_of(policy), Better.HIGHER
    rows = [
        _row(workload, f"attainment {CLASSES[at]}", "share", _attainment_of(at), higher, runs, policy)
        for at in range(len(CLASSES))
    ]
    measures: tuple[tuple[str, str, Of, Better, float | None], ...] = (
        ("attainment of all", "share", _attainment, higher, _mean(_attainment, runs[peer])),
        ("goodput", "requests/s", goodput_per_s, higher, _mean(goodput_per_s, runs[peer])),
        ("utilisation", "share", utilisation, higher, LEAST_UTILISATION),
        ("Jain index over tenants", "", lambda run: fairness(run.fates), higher, LEAST_FAIRNESS),
        ("Σ(delay ÷ SLA)² + λ · variance, a request", "", objective, Better.LOWER, None),
        ("TPOT p99", "ms", lambda run: _ms(map(tpot_s, run.fates), 0.99), Better.LOWER, None),
        ("preemptions", "a request", lambda run: run.preemptions / len(run.fates), Better.LOWER, None),
    )
    for metric, unit, of, better, goal in measures:
        rows.append(_row(workload, metric, unit, of, better, runs, policy, goal))
    return rows


def _row(
    workload: str, metric: str, unit: str, of: Of, better: Better, runs: Runs, policy: str, goal: float | None = None
) -> Row:
    peer = peer_of(policy)
    return Row(workload, metric, unit, _mean(of, runs[policy]), _mean(of, runs[peer]), peer, goal, better)


def _attainment(run: Run) -> float:
    return attainment(run.fates)


def _attainment_of(priority: int) -> Of:
    return lambda run: attainment(of_class(run, priority))


def _ms(values: Iterable[float], level: float) -> float | None:
    found = quantile(values, level)
    return None if found is None else 1e3 * found


def flood_rows(runs: Runs, duration_s: float) -> list[Row]:
    """Only for the policy that is made for it there are goals."""

    def quiet(run: Run) -> list[Fate]:
        return _quiet(run, duration_s)

    measures: tuple[tuple[str, str, Of, Better, float], ...] = (
        ("quiet tenants: first token within 1 s", "share", lambda run: _in_time(quiet(run)), Better.HIGHER, 0.99),
        (f"quiet tenants: TTFT p99 (goal: {MOST_DELAY:g} × 1 s)", "s",
         lambda run: quantile(map(ttft_s, quiet(run)), 0.99), Better.LOWER, MOST_DELAY),
        ("Jain index of served ÷ max-min fair share", "", lambda run: fairness(_flooded(run, duration_s)),
         Better.HIGHER, LEAST_FAIRNESS),
        ("utilisation", "share", utilisation, Better.HIGHER, LEAST_UTILISATION),
    )  # fmt: skip
    rows = []
    for policy in PolicyName:
        workload = f"ten tenants, one floods: {policy.value} beside {peer_of(policy)}"
        for metric, unit, of, better, goal in measures:
            own_goal = goal if policy is PolicyName.FAIR else None
            rows.append(_row(workload, metric, unit, of, better, runs, policy, own_goal))
    return rows


def _mean(of: Of, runs: Many[Run]) -> float | None:
    found = [of(run) for run in runs]
    numbers = [each for each in found if each is not None]
    return mean(numbers) if len(numbers) == len(found) else None


def _flooded(run: Run, duration_s: float) -> list[Fate]:
    return [fate for fate in run.fates if fate.asked.at_s >= FLOOD_BEGINS * duration_s]


def _quiet(run: Run, duration_s: float) -> list[Fate]:
    settled = [fate for fate in _flooded(run, duration_s) if fate.asked.at_s < SETTLED * duration_s]
    return [fate for fate in settled if fate.asked.tenant != "t0"]


def _in_time(fates: Many[Fate]) -> float:
    return mean(ttft_s(fate) <= CLASS_TTFT_S[fate.asked.priority] for fate in fates)


def batching_rows(workload: str, runs: Mapping[str, Run]) -> list[Row]:
    """Every mode's numbers, and which was best: the peer's column is continuous batching, which all others face."""
    base, rows = runs["continuous"], []
    measures: tuple[tuple[str, str, Callable[[Run], float | None]], ...] = (
        ("TTFT p50", "ms", lambda run: _ms(map(ttft_s, run.fates), 0.5)),
        ("TTFT p99", "ms", lambda run: _ms(map(ttft_s, run.fates), 0.99)),
        ("TPOT p99", "ms", lambda run: _ms(map(tpot_s, run.fates), 0.99)),
        ("busy for a request", "ms", lambda run: 1e3 * run.busy_s / len(run.fates)),
    )
    for metric, unit, of in measures:
        for mode, run in runs.items():
            rows.append(Row(workload, f"{metric}: {mode}", unit, of(run), of(base), "continuous"))
    return rows


def winners(rows: Many[Row]) -> list[str]:
    """Which batching mode was best at what, by workload; nothing is won by less than a hundredth."""
    said = []
    for workload in dict.fromkeys(row.workload for row in rows if row.workload.startswith("batching, ")):
        own = [row for row in rows if row.workload == workload and row.ours is not None and row.peer is not None]
        parts = []
        for metric in dict.fromkeys(row.metric.partition(": ")[0] for row in own):
            best = min((row for row in own if row.metric.startswith(f"{metric}: ")), key=lambda row: row.ours or 0.0)
            name = best.metric.partition(": ")[2] if (best.ours or 0.0) < 0.99 * (best.peer or 0.0) else "continuous"
            parts.append(f"{metric} {name}")
        said.append(f"Best, {workload.removeprefix('batching, ')}: {'; '.join(parts)}.")
    return said


def rounded(rows: Many[Row]) -> list[Row]:
    """Four significant digits: more is noise, even of a virtual clock."""

    def short(value: float | None) -> float | None:
        return None if value is None else float(f"{value:.4g}")

    return [replace(row, ours=short(row.ours), peer=short(row.peer), goal=short(row.goal)) for row in rows]


def host_rows(times: Mapping[PolicyName, tuple[float, float]]) -> list[Row]:
    rows = []
    for policy, (empty, waiting) in times.items():
        goal = HOST_GOAL_MS if policy is PolicyName.FCFS else None
        rows.append(Row("CPU time of a step of 256 sequences", policy.value, "ms", empty, goal=goal))
        rows.append(Row("CPU time of a step of 256 sequences", f"{policy.value}, 64 waiting", "ms", waiting, goal=goal))
    return rows
