"""The journal: however the bytes of a worker are cut, the client sees its events and the journal has its comments."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.http1.limits import MIB, ByteBudget
from gateway.retries import Failure
from gateway.streams.journal import Journal, StreamLimits, tokens_in
from gateway.streams.moving import Again, GiveUp, MovePolicy, Moving, new_ticket

LIMITS = StreamLimits()


def a_journal(limits: StreamLimits = LIMITS) -> tuple[Journal, ByteBudget]:
    memory = ByteBudget(limits.journal_bytes)
    return Journal(b"ab", limits, memory), memory


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30).map(lambda text: text.encode())
UNITS = st.tuples(st.lists(TEXTS, max_size=3), st.lists(st.integers(0, 200_000), min_size=1, max_size=3))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(UNITS, min_size=1, max_size=12), st.data())
def test_bytes_cut_anywhere_give_the_same_events_and_the_same_journal(
    units: list[tuple[list[bytes], list[int]]], data: st.DataObject
) -> None:
    wire, events, lines = b"", b"", b""
    for texts, tokens in units:
        shown = b"".join(b"data: %b\n\n" % text for text in texts)
        line = b" ".join(b"%d" % token for token in tokens)
        wire += shown + b":" + line + b"\n\n"
        events += shown
        lines += line + b"\n"
    journal, memory = a_journal()
    seen, rest = b"", wire
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        seen += journal.take(rest[:size])
        assert events.startswith(seen)
        assert lines.startswith(journal.content)
        assert tokens_in(journal.content) == journal.n_tokens
        rest = rest[size:]
    assert (seen, journal.content) == (events, lines)
    assert journal.n_tokens == sum(len(tokens) for _, tokens in units)
    assert memory.held_bytes >= len(lines)
    journal.close()
    assert memory.held_bytes == 0


def test_what_is_cut_off_counts_for_nothing_at_the_next_worker() -> None:
    journal, _ = a_journal()
    assert journal.take(b'data: "a"\n\n:1\n\ndata: "b"\n\n:2') == b'data: "a"\n\n'
    journal.next_worker()
    assert journal.take(b'data: "b"\n\n:2\n\n') == b'data: "b"\n\n'
    assert journal.content == b"1\n2\n"


def test_a_worker_that_leaves_shows_the_client_nothing() -> None:
    journal, _ = a_journal()
    assert journal.take(b'data: "a"\n\n:1\n\ndata: {"error"}\n\n:!draining\n\n') == b'data: "a"\n\n'
    assert (journal.left, journal.parting, journal.content) == (b"draining", b'data: {"error"}\n\n', b"1\n")
    journal.next_worker()
    assert (journal.left, journal.parting) == (None, b"")


def test_the_opening_and_the_end_are_no_tokens() -> None:
    journal, _ = a_journal()
    assert journal.take(b'data: "role"\n\n:\n\n') == b'data: "role"\n\n'
    assert journal.take(b":@12 5;1=@3 6 7s\n\n") == b""
    assert journal.take(b"data: [DONE]\n\n:.\n\n") == b"data: [DONE]\n\n"
    assert (journal.content, journal.n_tokens, journal.complete) == (b"@12 5;1=@3 6 7s\n", 3, True)


@pytest.mark.parametrize("limits", [StreamLimits(journal_bytes=1000), StreamLimits(stream_bytes=1000)])
def test_a_stream_without_room_loses_its_journal_and_still_counts(limits: StreamLimits) -> None:
    journal, memory = a_journal(limits)
    for number in range(1000):
        assert journal.take(b"data: %d\n\n:%d\n\n" % (number, number)) == b"data: %d\n\n" % number
        assert memory.held_bytes <= 1536
    assert (journal.lost, journal.content, journal.n_tokens, memory.held_bytes) == (True, b"", 1000, 0)


def test_a_write_that_never_ends_is_passed_on_and_the_journal_is_lost() -> None:
    journal, memory = a_journal()
    journal.take(b"data: a\n\n:1\n\n")
    passed = sum(len(journal.take(b"x" * 100_000)) for _ in range(100))
    assert passed > 10_000_000 - 2 * MIB
    assert journal.lost
    assert memory.held_bytes == 0


# --- moving -----------------------------------------------------------------------------------------------------------


def a_moving(n_tokens: int = 3) -> Moving:
    moving = Moving(MovePolicy())
    moving.journal, _ = a_journal()
    moving.journal.take(b"".join(b"data: %d\n\n:%d\n\n" % (number, number) for number in range(n_tokens)))
    return moving


def test_the_first_move_is_made_at_once_and_later_ones_wait_longer_and_longer() -> None:
    moving = a_moving()
    decisions = [moving.after(Failure.CONNECT) for _ in range(8)]
    delays = [one.delay_s for one in decisions if isinstance(one, Again)]
    assert delays == [0.0, 0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5]


def test_workers_that_give_no_token_are_tried_a_few_times_and_one_that_does_begins_the_count_anew() -> None:
    moving = a_moving()
    assert [type(moving.after(Failure.CLOSED)) for _ in range(6)] == [Again] * 6
    assert moving.journal is not None
    moving.journal.take(b"data: a\n\n:9\n\n")
    assert [type(moving.after(Failure.CLOSED)) for _ in range(7)] == [Again] * 6 + [GiveUp]


def test_a_refused_journal_and_one_that_is_lost_end_the_stream() -> None:
    assert isinstance(a_moving().after(Failure.REFUSED), GiveUp)
    moving = a_moving()
    assert moving.journal is not None
    moving.journal.lost = True
    assert isinstance(moving.after(Failure.CLOSED), GiveUp)
    assert not moving.possible


def test_the_next_worker_is_asked_with_the_body_and_then_the_journal() -> None:
    moving = a_moving(2)
    lines, body = moving.asks(b'{"a": 1}')
    assert body == b'{"a": 1}0\n1\n'
    assert lines == b"x-foretide-stream: %b\r\nx-foretide-continue: ab 8\r\n" % moving.ticket
    moving.journal = None
    assert moving.asks(b"{}") == (b"x-foretide-stream: %b\r\n" % moving.ticket, b"{}")


def test_tickets_are_what_workers_take() -> None:
    seed, name, created = new_ticket().split()
    assert 0 <= int(seed) < 2**64
    assert len(name) == 32
    assert name.isalnum()
    assert int(created) > 1_700_000_000


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=5))
def test_the_gap_runs_from_the_first_silence_to_the_next_word(moments_s: list[float]) -> None:
    moving = a_moving()
    for moment_s in moments_s:
        moving.lost(moment_s, Failure.CLOSED)
    assert moving.taken_over(10.0) == 10.0 - moments_s[0] == moving.gap_s
    assert (moving.moves, moving.lost_s) == (1, None)


@pytest.mark.parametrize(("why", "rests"), [(Failure.LOST, True), (Failure.RESET, False)])
def test_only_a_stream_that_left_a_hung_worker_rests_before_it_leaves_another(why: Failure, rests: bool) -> None:
    moving = Moving(MovePolicy())
    moving.lost(10.0, why)
    assert moving.taken_over(10.4) == pytest.approx(0.4)
    assert (moving.left_s == 10.4) is rests
