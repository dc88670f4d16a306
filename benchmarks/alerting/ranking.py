"""How often the broken part is first, or among the first three, of those that are named."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

from benchmarks.alerting.faults import KINDS, Case, Fleet, case, fleet
from benchmarks.report import Better, Row
from controllers.plans.alerting.causes import Symptom, rank
from controllers.plans.alerting.topology import Part, Reach

Choice = Callable[[Case, Fleet], list[Part]]


def ours(one: Case, on: Fleet) -> list[Part]:
    symptoms = [Symptom(seen.part, seen.at_s) for seen in one.alerts]
    reach = Reach(on.known({seen.part for seen in one.alerts}))
    return [cause.part for cause in rank(symptoms, reach, one.changes)]


def earliest(one: Case, on: Fleet) -> list[Part]:
    """The parts in the order of their first alerts."""
    order = sorted(one.alerts, key=lambda seen: seen.at_s)
    return list(dict.fromkeys(seen.part for seen in order))


def loudest(one: Case, on: Fleet) -> list[Part]:
    """The parts with the most alerts."""
    return [part for part, _ in Counter(seen.part for seen in one.alerts).most_common()]


def cases(first_seed: int, runs: int) -> Iterator[tuple[str, Case, Fleet]]:
    """As many of every kind."""
    for seed in range(first_seed, first_seed + runs):
        for kind in KINDS:
            rng = random.Random(f"{seed} {kind}")
            on = fleet(rng)
            found = case(rng, on, kind)
            if found is not None:
                yield kind, found, on


CHOICES: dict[str, Choice] = {
    "ours": ours,
    "earliest": earliest,
    "loudest": loudest,
    "most explaining": lambda one, on: most_explained(one, on),
}


def measure(runs: int, first_seed: int = 10_000) -> list[Row]:
    """AC@k over all kinds and of each kind."""
    hits: dict[str, Counter[tuple[str, int]]] = {name: Counter() for name in CHOICES}
    totals: Counter[str] = Counter()
    for kind, one, on in cases(first_seed, runs):
        totals[kind] += 1
        for name, choose in CHOICES.items():
            named = choose(one, on)
            for k in (1, 3):
                hits[name][kind, k] += one.root in named[:k]
    rows = []
    for peer in ("earliest", "loudest", "most explaining"):
        for k, goal in ((1, 0.7), (3, 0.9)):
            share = {name: sum(hits[name][kind, k] for kind in KINDS) / totals.total() for name in hits}
            rows.append(
                Row(
                    f"root cause with distractors, beside the {peer} ({totals.total()} faults)",
                    f"AC@{k}",
                    "share",
                    share["ours"],
                    share[peer],
                    f"the {peer}",
                    goal,
                    Better.HIGHER,
                )
            )
    for kind in totals:
        for k in (1, 3):
            ours_share, first = hits["ours"][kind, k] / totals[kind], hits["earliest"][kind, k] / totals[kind]
            workload = f"root cause by kind of fault: {kind}"
            rows.append(Row(workload, f"AC@{k}", "share", ours_share, first, "the earliest alert", None, Better.HIGHER))
    return rows


def most_explained(one: Case, on: Fleet) -> list[Part]:
    """The parts upstream of the most parts that alert, the narrowest first among equals."""
    reach = Reach(on.known({seen.part for seen in one.alerts}))
    alerting = {seen.part for seen in one.alerts}
    above = {part for symptom in alerting for part in reach.upstream(symptom)}
    return sorted(above, key=lambda part: (-len(reach.downstream(part).keys() & alerting), len(reach.downstream(part))))
