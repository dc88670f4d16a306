"""Whose turn it is: each owner's own in their order, and no owner twice while another waits."""

from __future__ import annotations

from worker_image.turns import Turns


def test_owners_take_turns_and_each_ones_own_come_in_their_order() -> None:
    turns: Turns[str] = Turns()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        turns.add(item[0], item)
    assert [turns.next() for _ in range(7)] == ["a1", "b1", "c1", "a2", "c2", "a3", None]


def test_who_had_the_last_turn_lets_a_newcomer_go_first() -> None:
    turns: Turns[str] = Turns()
    turns.add("a", "a1")
    assert turns.next() == "a1"
    turns.add("a", "a2")
    turns.add("b", "b1")
    assert [turns.next(), turns.next()] == ["b1", "a2"]
