"""The benchmark of alerts: its storms have a truth, and its faults are seeded."""

from __future__ import annotations

import random

from benchmarks.alerting import ranking
from benchmarks.alerting.faults import KINDS, case, fleet
from benchmarks.alerting.storm import ALERTS, FAULTS, storm
from controllers.plans.alerting.inbound import read


def test_a_storm_has_ten_thousand_alerts_of_thirty_faults() -> None:
    made = storm()
    heard = [one for body in made.messages for one in read(body)]
    assert len({one.fingerprint for one in heard}) == len(made.truth) == ALERTS
    assert len(set(made.truth.values())) == FAULTS


def test_the_same_seed_is_the_same_fault() -> None:
    def once() -> object:
        rng = random.Random(3)
        return case(rng, fleet(rng), "node")

    assert once() == once()


def test_distractors_hang_neither_on_the_fault_nor_the_fault_on_them() -> None:
    for kind in KINDS:
        rng = random.Random(kind)
        on = fleet(rng)
        found = next(filter(None, (case(rng, on, kind) for _ in range(50))))
        related = {*on.topology.downstream(found.root), *on.topology.upstream(found.root)}
        assert {seen.part for seen in found.alerts} - related
        assert {seen.part for seen in found.alerts if seen.name.startswith("other")}.isdisjoint(related)


def test_the_shares_are_of_all_faults() -> None:
    rows = ranking.measure(3, first_seed=0)
    assert {row.metric for row in rows} == {"AC@1", "AC@3"}
    assert all(0 <= (row.ours or 0) <= 1 for row in rows)
