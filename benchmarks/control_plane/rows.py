"""The findings of a run as rows, ours beside the peer's, with the goals. No measuring and no judging here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.control_plane.edits import quantile
from benchmarks.control_plane.run import Findings, Window
from benchmarks.control_plane.scale import Scale
from benchmarks.report import Better, Row, Words

PEER_NAME: Final = "plain Kopf 1.45 handlers"


@dataclass(frozen=True, slots=True)
class _Question:
    """One metric, and where its number is in the findings of either subject."""

    workload: str
    metric: str
    unit: str
    answer: Callable[[Findings], float | None]
    goal: float | None = None


def rows(scale: Scale, ours: Findings, peer: Findings | None) -> list[Row]:
    return [_row(one, ours, peer) for one in _questions(scale)]


def _row(one: _Question, ours: Findings, peer: Findings | None) -> Row:
    return Row(
        workload=one.workload,
        metric=one.metric,
        unit=one.unit,
        ours=_finite(one.answer(ours)),
        peer=None if peer is None else _finite(one.answer(peer)),
        peer_name=None if peer is None else PEER_NAME,
        goal=one.goal,
        better=Better.LOWER,
    )


def _finite(value: float | None) -> float | None:
    """JSON knows neither infinity nor NaN; an edit that was never followed has no latency."""
    return None if value is None or not math.isfinite(value) else round(value, 4)


def _questions(scale: Scale) -> Sequence[_Question]:
    fleet = f"{scale.objects:,} InferenceServices, {scale.pods:,} pods"
    changes = f"{scale.changes_per_s:.0f} pod changes/s"
    first, idle = f"first start, {scale.objects:,} InferenceServices without children", f"idle, {fleet}"
    restart, churn = f"restart, {fleet}", f"{changes}, {fleet}"
    quiet, busy = f"spec edits, {scale.edits_per_s:.0f}/s, {fleet}", f"spec edits among {changes}, {fleet}"
    return (
        _Question(first, "until every child and status is written", "s", lambda f: _first(f)[0]),
        _Question(first, "API writes for each InferenceService", "writes", lambda f: _first(f)[1] / scale.objects),
        _Question(first, "CPU time", "s", lambda f: _first(f)[2]),
        _Question(restart, "start of the process until all is synced and reconciled", "s", _restart_s, goal=10.0),
        _Question(restart, "API writes", "writes", _restart_writes, goal=0.0),
        _Question(restart, "CPU time", "s", _restart_cpu_s),
        _Question(restart, "peak memory", "MB", _restart_peak_mb, goal=300.0),
        _Question(
            idle, "API writes (Lease renewals left out)", "writes", lambda f: _idle(f).writes.without_leases, goal=0.0
        ),
        _Question(idle, "Lease renewals", "1/s", lambda f: _idle(f).writes.leases / _idle(f).length_s),
        _Question(idle, "CPU share of one core", "%", lambda f: _idle(f).cpu_percent),
        _Question(idle, "memory", "MB", lambda f: f.idle_rss_mb, goal=300.0),
        *_edit_questions(quiet, lambda f: f.edits, p99_goal=100.0),
        *_edit_questions(busy, lambda f: f.edits_in_churn, p99_goal=100.0),
        _Question(churn, "CPU share of one core", "%", lambda f: _churn(f).cpu_percent),
        _Question(churn, "CPU time for each pod change", "ms", lambda f: 1000 * _churn(f).cpu_s / _churn(f).changes),
        _Question("all of the above", "exits of the process by itself", "exits", lambda f: f.exits, goal=0.0),
        _Question("all of the above", "peak memory of any life", "MB", lambda f: f.peak_mb, goal=300.0),
    )


def _edit_questions(
    workload: str, window: Callable[[Findings], Window | None], p99_goal: float
) -> tuple[_Question, ...]:
    def of(found: Findings) -> Window:
        chosen = window(found)
        assert chosen is not None, "a finished run has every window"
        return chosen

    def latency(share: float) -> Callable[[Findings], float]:
        def answer(found: Findings) -> float:
            latencies = of(found).latencies
            assert latencies is not None, "edit windows have latencies"
            return latencies.quantile(share)

        return answer

    def patch(share: float) -> Callable[[Findings], float]:
        def answer(found: Findings) -> float:
            latencies = of(found).latencies
            assert latencies is not None, "edit windows have latencies"
            return quantile(latencies.patch_ms, share)

        return answer

    def lost(found: Findings) -> float:
        latencies = of(found).latencies
        assert latencies is not None, "edit windows have latencies"
        return latencies.lost

    return (
        _Question(workload, "edit sent → Deployment follows, p50", "ms", latency(0.50)),
        _Question(workload, "edit sent → Deployment follows, p99", "ms", latency(0.99), goal=p99_goal),
        _Question(workload, "the slowest", "ms", latency(1.0)),
        _Question(workload, "of which the edit's own PATCH, p50", "ms", patch(0.50)),
        _Question(workload, "of which the edit's own PATCH, p99", "ms", patch(0.99)),
        _Question(workload, "not followed within 15 s", "edits", lost, goal=0.0),
        _Question(workload, "CPU time for each edit", "ms", lambda f: 1000 * of(f).cpu_s / len(_ms(of(f)))),
        _Question(workload, "CPU time for each reconcile", "ms", lambda f: _per_reconcile_ms(of(f)), goal=5.0),
        _Question(workload, "reconciles for each edit", "reconciles", lambda f: of(f).handled / len(_ms(of(f)))),
        _Question(workload, "time in which some process waited for a CPU", "%", lambda f: of(f).contended_percent),
    )


def _ms(window: Window) -> list[float]:
    assert window.latencies is not None, "edit windows have latencies"
    return window.latencies.ms


def _per_reconcile_ms(window: Window) -> float:
    """All CPU of the process, its watching and idling too, over reconciles of InferenceServices only."""
    return 1000 * window.cpu_s / window.handled if window.handled else math.inf


def _first(found: Findings) -> tuple[float, int, float]:
    assert found.first is not None, "a finished run has a first start"
    return found.first.took_s, found.first.writes.without_leases, found.first.cpu_s


def _restart_s(found: Findings) -> float:
    return statistics.median(one.took_s for one in found.restarts)


def _restart_writes(found: Findings) -> float:
    return max(one.writes.without_leases for one in found.restarts)


def _restart_cpu_s(found: Findings) -> float:
    return statistics.median(one.cpu_s for one in found.restarts)


def _restart_peak_mb(found: Findings) -> float:
    return max(one.peak_mb for one in found.restarts)


def _idle(found: Findings) -> Window:
    assert found.idle is not None, "a finished run has an idle window"
    return found.idle


def _churn(found: Findings) -> Window:
    assert found.churn is not None, "a finished run has a window of pod changes"
    return found.churn


WORDS: Final = Words(
    title="Control plane: the operator at 1,000 services",
    command="make bench-control-plane",
    about=(
        "How quickly the operator follows a change, how quiet it is when nothing changes, and what it costs. A real"
        " kube-apiserver and etcd and the operator's real process share the machine; there are no nodes: pods and the"
        " statuses of Deployments are written by the benchmark as kubelets and controllers would write them.",
        "The peer does the same work the way Kopf's handbook teaches: one handler for create, update and resume applies"
        " the five children through the stock `kubernetes` client, an event handler keeps the ready pods, and a timer"
        " writes their number into the status every 10 s (ours follows at once).",
    ),
    notes=(
        "An edit's latency runs from the moment the PATCH is sent until a watch shows the Deployment that follows it;"
        " the API server's own time for both writes is inside. Half of the edits change the number of workers, half an"
        " engine setting, which makes a new revision. They are sent at fixed times, whatever the operator does.",
        "On a machine that does other work besides, latencies are those of the machine: the PATCH alone, in which the"
        " operator has no part, and the time in which some process waited for a CPU say how much. CPU times grow"
        " a little with it; writes and memory do not.",
        "The data of etcd lie in memory where the machine has `/dev/shm`: the disk is not what is measured.",
        "Writes are counted by the API server (`apiserver_request_total`), not by the operator, after the benchmark's"
        " own have ended. Renewing the Lease is the one write of an idle operator and has a row of its own; the peer"
        " elects no leader.",
        "Of the pod changes every fifth turns a pod's readiness, which the status of its service follows with a write;"
        " the others change nothing that a plan reads.",
        "CPU per reconcile is the whole process's CPU time in that window, watching and idling included, over the"
        " reconciles of InferenceServices in it: an upper bound. CPU is user and system time.",
        "The gateway does not run, so no probe is sent; services are ready but not servable.",
        "Without its resume handler the peer would write nothing at a restart, and notice nothing that happened to its"
        " children while it was away.",
        "Restarts: of three of ours, time and CPU are medians, writes and memory the worst; the peer restarts once.",
    ),
)
