"""When requests flow again, what was lost, and that a campaign finds its lines again."""

from __future__ import annotations

from pathlib import Path

from e2e.chaos.outcomes import (
    GOOD_RUN,
    Asked,
    Lost,
    Outcome,
    Quiet,
    append,
    flows,
    line,
    lost,
    moved_after_s,
    read,
    troubles,
)

OUTCOME = Outcome(
    3, "process kill", "anna", "anna-1 on node-1", "2026-11-26 15:00:00", 0.4, "pod: not ready", 1.25, 9.5, 0.0, True,
    Lost(50, 1, 2, 1, 0), ("anna pod: anna-2 restarted, 1 so far",), "", ("503: none",),
)  # fmt: skip


def answers(*took_s: float, from_s: float = 0.0, every_s: float = 1.0) -> list[Asked]:
    return [Asked(from_s + n * every_s, from_s + n * every_s + took, None) for n, took in enumerate(took_s)]


def test_requests_that_nothing_disturbs_have_moved_at_once() -> None:
    assert moved_after_s(answers(*[0.1] * 20), since_s=5.0) == 0.0


def test_requests_have_moved_when_the_first_of_a_good_run_was_sent() -> None:
    asked = answers(0.1, 5.0, 0.1, 4.0, *[0.1] * GOOD_RUN)
    assert moved_after_s(asked, since_s=1.0) == 3.0


def test_what_was_in_flight_at_the_fault_counts_with_its_end() -> None:
    asked = [Asked(0.0, 8.0, None), *answers(*[0.1] * GOOD_RUN, from_s=1.0)]
    assert moved_after_s(asked, since_s=1.0) == 7.0


def test_requests_have_not_moved_before_a_whole_good_run() -> None:
    assert moved_after_s(answers(5.0, *[0.1] * (GOOD_RUN - 1)), since_s=0.0) is None
    assert moved_after_s([], since_s=0.0) is None


def test_a_failure_disturbs_and_a_long_stream_does_not() -> None:
    failed = Asked(1.0, 1.1, "503: none")
    assert moved_after_s([failed, *answers(*[0.1] * GOOD_RUN, from_s=2.0)], since_s=1.0) == 1.0
    stream = Asked(1.0, 9.0, None, stream=True)
    assert moved_after_s([stream, *answers(*[0.1] * GOOD_RUN, from_s=2.0)], since_s=1.0) == 0.0


def test_requests_flow_when_the_last_ones_were_good() -> None:
    asked = answers(*[0.1] * GOOD_RUN)
    assert flows(asked, 0.0, 20.0)
    assert not flows(asked, 1.0, 20.0)
    assert not flows([*asked, Asked(11.0, 11.5, "500")], 0.0, 20.0)


def test_losses_are_told_apart() -> None:
    asked = [
        Asked(0.0, 0.1, None),
        Asked(0.0, 0.1, "503: none"),
        Asked(0.0, 1.0, None, stream=True),
        Asked(0.0, 1.0, "ended without [DONE]", stream=True),
        Asked(0.0, 1.0, "changed: at 3 of 9: 'a' became 'b'", stream=True),
    ]
    assert lost(asked) == Lost(requests=2, failed=1, streams=3, broken=1, changed=1)
    assert lost(asked).lost == 3
    assert troubles(asked)[:2] == ("503: none", "stream ended without [DONE]")


def test_lines_are_found_again_and_the_last_of_a_number_counts(tmp_path: Path) -> None:
    path = tmp_path / "campaign" / "lines.jsonl"
    assert read(path) == ({}, [])
    quiet = Quiet("2026-11-26 14:55:00", 300.0, 5, Lost(7500, 0, 700, 0, 0), ())
    for what in (quiet, Outcome(**{**_fields(OUTCOME), "healed": False}), OUTCOME):
        append(path, what)
    assert read(path) == ({3: OUTCOME}, [quiet])


def test_a_line_for_people_says_times_losses_and_false_actions() -> None:
    assert line(OUTCOME) == (
        "  3 process kill           anna     healed: found 0.4 s, moved 1.2 s, back 9.5 s, 2 lost, 1 false actions"
        " (pod: not ready)"
    )


def _fields(outcome: Outcome) -> dict[str, object]:
    return {name: getattr(outcome, name) for name in outcome.__slots__}
