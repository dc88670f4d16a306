"""Which worker goes first."""

from __future__ import annotations

import dataclasses

from controllers.plans.deletion import deletion_costs
from controllers.plans.snapshot import Load
from tests.gen import workers


def test_the_least_loaded_worker_is_the_cheapest() -> None:
    three = workers("r", 3)
    loads = {"chat-r-1": Load(5, 0), "chat-r-2": Load(0, 0), "chat-r-3": Load(2, 0)}
    assert deletion_costs(three, loads) == {"chat-r-1": 5, "chat-r-3": 2}


def test_a_worker_that_does_not_answer_counts_as_the_busiest() -> None:
    assert deletion_costs(workers("r", 2), {"chat-r-1": Load(5, 0)}) == {"chat-r-1": 5, "chat-r-2": 6}


def test_equal_loads_write_nothing() -> None:
    assert deletion_costs(workers("r", 3), {f"chat-r-{n}": Load(4, 0) for n in (1, 2, 3)}) == {}
    assert deletion_costs(workers("r", 3), {}) == {}


def test_costs_that_stand_are_not_written_again() -> None:
    one, two = workers("r", 2)
    standing = (dataclasses.replace(one, deletion_cost=5), two)
    assert deletion_costs(standing, {one.name: Load(5, 0), two.name: Load(0, 0)}) == {}


def test_costs_of_an_earlier_scale_down_are_corrected() -> None:
    one, two = workers("r", 2)
    stale = (dataclasses.replace(one, deletion_cost=9), two)
    assert deletion_costs(stale, {one.name: Load(0, 0), two.name: Load(3, 0)}) == {one.name: 0, two.name: 3}


def test_workers_that_are_not_ready_or_leave_are_left_alone() -> None:
    loads = {"chat-r-1": Load(5, 0), "chat-r-2": Load(1, 0), "chat-r-4": Load(7, 0)}
    assert deletion_costs(workers("r", 2, unready=1, leaving=1), loads) == {"chat-r-1": 5, "chat-r-2": 1}
