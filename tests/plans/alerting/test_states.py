"""The life of one alert."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controllers.plans.alerting.alerts import Alert, State
from controllers.plans.alerting.states import EXTERNAL_LOST_S, Timing, advance
from crds.alert_status import AlertSeverity

NEW = Alert("f", {}, AlertSeverity.P1, State.RESOLVED, 0.0)


def play(timing: Timing, *looks: tuple[float, bool | None]) -> list[str]:
    """The state after each look."""
    alert: Alert | None = NEW
    story = []
    for now_s, broken in looks:
        alert = advance(alert or NEW, broken, "m", timing, now_s)
        story.append("gone" if alert is None else alert.state.value + ("!" if alert.flapping else ""))
    return story


def test_it_fires_only_after_it_has_lasted() -> None:
    story = play(Timing(for_s=60), (0, True), (59, True), (60, True), (90, False))
    assert story == ["pending", "pending", "firing", "resolved"]
    assert play(Timing(for_s=60), (0, True), (30, False), (60, True)) == ["pending", "gone", "pending"]
    assert play(Timing(), (0, True)) == ["firing"]


def test_a_number_that_is_missing_changes_nothing() -> None:
    assert play(Timing(for_s=60), (0, True), (60, None), (61, True), (99, None)) == [
        "pending",
        "pending",
        "firing",
        "firing",
    ]


def test_what_an_alertmanager_opened_and_closed_is_over_though_no_number_of_ours_says_so() -> None:
    told = replace(NEW, external=True, heard_s=0.0)
    firing = advance(told, None, "m", Timing(keep_s=60), 5.0)
    assert firing
    assert advance(firing, None, "m", Timing(), 9.0) is firing
    over = replace(firing, external=False, heard_s=10.0)
    held = advance(over, None, "m", Timing(keep_s=60), 15.0)
    assert held
    assert held.firing
    ended = advance(held, None, "m", Timing(keep_s=60), 75.0)
    assert ended
    assert ended.state is State.RESOLVED


def test_what_we_saw_ourselves_after_an_alertmanagers_last_word_stays_while_the_number_is_missing() -> None:
    ours = replace(NEW, state=State.FIRING, since_s=20.0, heard_s=10.0)
    assert advance(ours, None, "m", Timing(), 99.0) is ours
    echoed = replace(ours, heard_s=30.0)
    seen = advance(echoed, True, "m", Timing(), 35.0)
    assert seen
    held = advance(seen, None, "m", Timing(), 40.0)
    assert held
    assert held.firing
    assert advance(held, True, "m", Timing(), 45.0) is held, "it is written once"


def test_it_is_over_only_after_it_was_well_for_a_while() -> None:
    story = play(Timing(keep_s=60), (0, True), (10, False), (60, True), (70, False), (129, False), (130, False))
    assert story == ["firing"] * 5 + ["resolved"]


def test_what_comes_and_goes_is_held_as_one_until_it_has_calmed_down() -> None:
    timing = Timing(flap_firings=3, flap_within_s=600)
    looks = [(t, (t // 10) % 2 == 0) for t in range(0, 600, 10)]
    story = play(timing, *looks)
    assert story[:6] == ["firing", "resolved", "firing", "resolved", "firing!", "firing!"]
    assert set(story[4:]) == {"firing!"}
    # Nothing has been wrong for as long as `within`.
    calm = play(timing, *looks, *((t, False) for t in range(600, 2000, 10)))
    over_s = calm.index("resolved", 10) * 10
    assert 1100 <= over_s <= 1200


def test_two_firings_an_hour_apart_are_not_flapping() -> None:
    timing = Timing(flap_firings=3, flap_within_s=600)
    looks = [(t * 3600.0 + half, half == 0) for t in range(6) for half in (0, 60)]
    assert set(play(timing, *looks)) == {"firing", "resolved"}


@pytest.mark.parametrize("firings", [2, 3, 4, 5, 6, 15, 100])
def test_as_many_firings_as_asked_for_within_the_time_are_flapping_however_they_lie_in_it(firings: int) -> None:
    timing = Timing(flap_firings=firings, flap_within_s=1800)
    evenly = [n * 1800 / (firings - 1) for n in range(firings)]
    early = [n * 4.0 for n in range(firings - 1)] + [1800.0]
    for times in (evenly, early):
        story = play(timing, *((at_s + after_s, after_s == 0) for at_s in times for after_s in (0, 1)))
        assert story == ["firing", "resolved"] * (firings - 1) + ["firing!", "firing!"]


def test_firings_that_are_too_few_or_too_old_are_not_flapping() -> None:
    twice = Timing(flap_firings=2, flap_within_s=1800)
    assert play(twice, (0, True), (60, False), (1861, True)) == ["firing", "resolved", "firing"]
    four = Timing(flap_firings=4, flap_within_s=1800)
    assert set(play(four, *((n * 2.0, n % 2 == 0) for n in range(6)))) == {"firing", "resolved"}


def test_firings_of_a_day_are_remembered_where_a_day_is_asked_for() -> None:
    timing = Timing(flap_firings=3, flap_within_s=24 * 3600.0)
    looks = [(hour * 3600.0, hour % 11 == 0) for hour in range(23)]
    assert play(timing, *looks)[-1] == "firing!"


def test_what_an_alertmanager_says_fires_at_once_and_until_it_says_otherwise_or_nothing_for_a_day() -> None:
    told = replace(NEW, external=True, heard_s=100.0)
    firing = advance(told, False, "", Timing(for_s=600), 100.0)
    assert firing is not None
    assert firing.firing
    assert advance(firing, False, "", Timing(), 200.0) == firing
    assert advance(replace(firing, external=False), False, "", Timing(), 200.0).state is State.RESOLVED  # type: ignore[union-attr]
    lost = advance(firing, False, "", Timing(), 101.0 + EXTERNAL_LOST_S)
    assert lost is not None
    assert lost.state is State.RESOLVED
