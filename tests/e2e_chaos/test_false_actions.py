"""Which actions nobody had a reason for."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, cast

import pytest

from e2e.chaos.campaign import wrong_action
from e2e.chaos.scene import Scene
from e2e.chaos.schedule import BY_NAME, Fault
from e2e.chaos.signs import By, Sign


def scene(kind: str) -> Scene:
    """A fault at 100 s on anna-1, after a calm since 50 s; anna-2 was there, too."""
    nothing = cast("Any", None)
    it = Scene(Fault(1, 7, BY_NAME[kind], "anna"), nothing, nothing, nothing, asyncio.Lock(), Random(1), 50.0)
    it.since_s, it.touched, it.there = 100.0, frozenset({"anna-1"}), frozenset({"anna-1", "anna-2"})
    return it


@pytest.mark.parametrize(
    ("at_s", "by", "pod", "wrong"),
    [
        (40.0, By.POD, "anna-2", False),
        (60.0, By.POD, "anna-1", True),
        (60.0, By.GATEWAY, "", True),
        (101.0, By.POD, "anna-1", False),
        (101.0, By.POD, "anna-2", True),
        (101.0, By.POD, "anna-3", False),
        (101.0, By.GATEWAY, "", False),
    ],
)
def test_of_a_workers_fault_only_that_worker_and_its_successors_may_be_acted_on(
    at_s: float, by: By, pod: str, wrong: bool
) -> None:
    sign = Sign(at_s, by, "anna", "restarted", pod, action=True)
    assert wrong_action(sign, scene("process kill"), ["anna"]) is wrong


def test_nothing_may_be_done_about_what_goes_away_around_the_workers() -> None:
    sign = Sign(101.0, By.POD, "bela", "restarted", "bela-1", action=True)
    assert wrong_action(sign, scene("operator kill"), ["anna", "bela"])
    assert not wrong_action(sign, scene("process kill"), ["anna"])
