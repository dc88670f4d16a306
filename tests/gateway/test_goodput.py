"""Goodput: answers that met every target of their SLA."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.catalog import Service, ServiceKey
from gateway.goodput import in_time
from gateway.kept import keep_level

FREE = Service(ServiceKey("demo", "chat"))
BOUND = replace(FREE, ttft_target_s=0.5, tpot_target_s=0.05, e2e_target_s=3.0)


@pytest.mark.parametrize(
    ("ttft_s", "duration_s", "tokens", "good"),
    [
        (0.4, 1.4, 21, True),
        (0.6, 1.4, 21, False),
        (0.4, 1.5, 21, False),
        (0.4, 3.1, 200, False),
        (0.4, 0.4, 1, True),
        (None, 2.9, 1, True),
        (None, 3.1, 200, False),
    ],
    ids=["all met", "late first token", "slow tokens", "late end", "one token", "whole and in time", "whole and late"],
)
def test_an_answer_is_good_when_no_target_is_missed(
    ttft_s: float | None, duration_s: float, tokens: int, good: bool
) -> None:
    assert in_time(BOUND, ttft_s, duration_s, tokens) is good
    assert in_time(FREE, ttft_s, duration_s, tokens), "without an SLA nothing is late"


def test_the_targets_are_those_of_the_sla() -> None:
    level = keep_level({"spec": {"priority": "P1", "targets": {"ttft": "500ms", "tpot": "50ms", "e2e": "30s"}}})
    assert (level.ttft_target_s, level.tpot_target_s, level.e2e_target_s) == (0.5, 0.05, 30.0)
    none = keep_level({"spec": {"priority": "P3"}})
    assert (none.ttft_target_s, none.tpot_target_s, none.e2e_target_s) == (None, None, None)
