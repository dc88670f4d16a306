"""The numbers and the page of a campaign, made from its lines. Pure but for the writing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

from benchmarks.report import Better, Report, Row, Words, machine, publish
from e2e.chaos.outcomes import Lost, Outcome, Quiet
from e2e.chaos.schedule import BY_NAME, KINDS, Promise

DETECT_S: Final = 3.0
MOVE_S: Final = 5.0
BACK_S: Final = 20.0
HEALED_PERCENT: Final = 95.0
FAULTS, N_KINDS = 200, 12


def rows(outcomes: Sequence[Outcome], quiet: Sequence[Quiet]) -> list[Row]:
    """All of the page's numbers."""
    made = [*_sums(outcomes), *_quiet(quiet)]
    for promise, heading in (
        (Promise.WORKER, "Workers that are lost or hurt"),
        (Promise.REVISION, "What was asked for is bad"),
        (Promise.SURROUNDINGS, "What is around the workers goes away"),
    ):
        of = [one for one in outcomes if BY_NAME[one.kind].promise is promise]
        made += _times(heading, of, goals=promise is Promise.WORKER)
    for kind in KINDS:
        of = [one for one in outcomes if one.kind == kind.name]
        if of:
            made += _of_kind(kind.name, of)
    return made


def _sums(outcomes: Sequence[Outcome]) -> list[Row]:
    took = sum((one.took for one in outcomes), Lost())
    where = "the campaign"
    high, low = Better.HIGHER, Better.LOWER
    return [
        Row(where, "faults injected", "faults", float(len(outcomes)), goal=FAULTS, better=high),
        Row(where, "kinds", "kinds", float(len({one.kind for one in outcomes})), goal=N_KINDS, better=high),
        Row(where, "healed within 3 minutes", "% of faults", _healed(outcomes), goal=HEALED_PERCENT, better=high),
        Row(where, "false actions", "actions", float(sum(len(one.wrong) for one in outcomes)), goal=0, better=low),
        Row(where, "requests", "requests", float(took.requests)),
        Row(where, "requests that failed", "requests", float(took.failed), goal=0),
        Row(where, "streams", "streams", float(took.streams)),
        Row(where, "streams that broke", "streams", float(took.broken), goal=0),
        Row(where, "streams with a token lost, repeated or changed", "streams", float(took.changed), goal=0),
    ]


def _quiet(quiet: Sequence[Quiet]) -> list[Row]:
    took = sum((one.took for one in quiet), Lost())
    where = "quiet control period"
    actions = float(sum(len(one.wrong) for one in quiet)) if quiet else None
    return [
        Row(where, "lasted", "s", sum(one.lasted_s for one in quiet)),
        Row(where, "actions", "actions", actions, goal=0),
        Row(where, "requests and streams", "requests", float(took.requests + took.streams)),
        Row(where, "lost", "requests", float(took.lost) if quiet else None, goal=0),
    ]


def _times(where: str, outcomes: Sequence[Outcome], *, goals: bool) -> list[Row]:
    if not outcomes:
        return []
    made = [Row(where, "faults", "faults", float(len(outcomes)))]
    made.append(Row(where, "healed within 3 minutes", "% of faults", _healed(outcomes)))
    for name, read, goal in _READ:
        values = sorted(value for one in outcomes if (value := read(one)) is not None)
        if not values:
            continue
        within = 100.0 * sum(value <= goal for value in values) / len(outcomes)
        made.append(Row(where, f"{name}, median", "s", median(values), goal=goal if goals else None))
        made.append(Row(where, f"{name}, 95th percentile", "s", at(values, 0.95), goal=goal if goals else None))
        made.append(Row(where, f"{name}, longest", "s", values[-1]))
        made.append(Row(where, f"{name} within {goal:g} s", "% of faults", within))
    return made


def _of_kind(name: str, outcomes: Sequence[Outcome]) -> list[Row]:
    where = f"kind: {name}"
    took = sum((one.took for one in outcomes), Lost())
    made = [
        Row(where, "faults", "faults", float(len(outcomes))),
        Row(where, "healed", "% of faults", _healed(outcomes), goal=HEALED_PERCENT, better=Better.HIGHER),
    ]
    for title, read, _ in _READ:
        values = sorted(value for one in outcomes if (value := read(one)) is not None)
        if values:
            made.append(Row(where, f"{title}, median", "s", median(values)))
            made.append(Row(where, f"{title}, longest", "s", values[-1]))
    made.append(Row(where, "requests and streams lost", "requests", float(took.lost), goal=0))
    made.append(Row(where, "false actions", "actions", float(sum(len(one.wrong) for one in outcomes)), goal=0))
    return made


_READ: Final[tuple[tuple[str, Callable[[Outcome], float | None], float], ...]] = (
    ("fault → found", lambda one: one.detected_s, DETECT_S),
    ("fault → requests moved", lambda one: one.moved_s, MOVE_S),
    ("fault → back", lambda one: one.back_s, BACK_S),
)


def _healed(outcomes: Sequence[Outcome]) -> float | None:
    return 100.0 * sum(one.healed for one in outcomes) / len(outcomes) if outcomes else None


def at(values: Sequence[float], share: float) -> float:
    """The quantile of sorted values, as one of them."""
    return values[min(int(len(values) * share), len(values) - 1)]


def words(outcomes: Sequence[Outcome], quiet: Sequence[Quiet]) -> Words:
    """What the page says around its tables, with what went wrong in it."""
    return Words(
        title="Chaos: injected faults on a real cluster",
        command="make bench-chaos",
        about=(
            "The real operator, gateways, API server and kubelets of the local cluster of two nodes; five services of"
            " two workers each. A worker is the real one, server and engine, with a Llama of 80,000 weights whose steps"
            " take 20 ms more than they must, so that streams last. Each service is asked five times a second, by the"
            " clock, and streams one answer of 100 tokens after the other, each compared with its undisturbed twin."
            " Nothing is retried by the clients. Four services are hit side by side; what hits everybody, such as a"
            " fault of a node with a fifth one's made-up MIG slices, comes alone, before them.",
            "The faults:\n\n" + "\n".join(f"- **{kind.name}**: {kind.says}." for kind in KINDS),
        ),
        notes=(
            "*Found* is the first sign of it in a gateway's metrics, in a pod, in a service's status, or on a node."
            " *Moved*: ten requests in a row, sent after the fault, are answered within a second; 0 where none was"
            " disturbed. *Back*: as many workers as wanted, ready, in both gateways' use, and requests flow; from the"
            " end of the fault where it has one of its own (a cut, a delay, an outage, a slow worker).",
            "A bad revision is *found* when the service's status says so, and *back* when it is rolled back and the one"
            " of before serves with all its workers. Nobody announces that an API server was away; it is *back* when an"
            " edit of that time is done.",
            "A *false action* is a worker made, ended, restarted, left out by a gateway, or a rollout that moved, in a"
            " service without a fault (from three seconds after it was whole again), or of a worker that had none."
            " Requests count from one fault of a service to the next, so that none falls between.",
            "Two cores carry the cluster, the workers, the clients and the harness: what needs a processor, such as"
            " starting a worker (four seconds of it), takes longer than on a machine that has nothing else to do.",
            "Left out: faults of a real GPU (XIDs are recorded events, given to the GPU agent), a full disk of a node"
            " (only a worker's own volume is filled), packet delay by netem, which this kernel lacks (a narrow link"
            " stands for it), and the loss of a gateway, whose open streams Foretide does not promise.",
            *_troubles(outcomes, quiet),
        ),
    )


def _troubles(outcomes: Sequence[Outcome], quiet: Sequence[Quiet]) -> list[str]:
    """One line for each fault that was not healed, lost something, or had a false action."""
    made = []
    for one in sorted(outcomes, key=lambda outcome: outcome.number):
        said = [] if one.healed else ["not healed"]
        said += [f"{one.took.lost} lost: {'; '.join(one.troubles)}"] if one.took.lost else []
        said += [f"false: {'; '.join(one.wrong[:3])}{' …' if len(one.wrong) > 3 else ''}"] if one.wrong else []
        said += [one.note] if one.note else []
        if said:
            made.append(f"Fault {one.number}, {one.kind} ({one.service}): {anonymous('. '.join(said))}.")
    made += [f"Quiet period: {anonymous(wrong)}." for one in quiet for wrong in one.wrong]
    return made


def anonymous(text: str) -> str:
    """Pods' names without the part that chance made."""
    return re.sub(r"\b([a-z]+)-[0-9a-f]{10}-[0-9a-z]+-[0-9a-z]{5}\b", r"a worker of \1", text)


def write(outcomes: Sequence[Outcome], quiet: Sequence[Quiet], commit: str) -> None:
    """The page and its numbers, dated by the last fault."""
    date = max(one.at for one in outcomes)[:16] + " UTC"
    report = Report(machine(), commit, date, tuple(rows(outcomes, quiet)))
    publish(report, words(outcomes, quiet), "chaos")
