"""From counters to what happened in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from controllers.history.counters import COUNTERS, Page, Row, Seen, read_page, tally
from controllers.history.interface import ServiceId
from gateway.catalog import ServiceKey
from gateway.metrics import Metrics
from gateway.usage import Usage

CHAT = ServiceId("demo", "chat")
PERIOD_S = 15.0


def page(*row: float) -> Page:
    a, b, c, d = row
    return {CHAT: (a, b, c, d)}


def seen(at_s: float, *row: float) -> dict[str, Seen]:
    return {"g1": Seen(at_s, page(*row))}


def test_the_page_of_a_real_gateway_is_read() -> None:
    metrics = Metrics()
    service = metrics.service(ServiceKey("demo", "chat"))
    service.arrivals.inc(3)
    service.completed(Usage(5, 7), good=True)
    metrics.service(ServiceKey("demo", "idle"))
    assert read_page(generate_latest(metrics.registry).decode()) == {
        CHAT: (3.0, 1.0, 5.0, 7.0),
        ServiceId("demo", "idle"): (0.0, 0.0, 0.0, 0.0),
    }


def test_lines_that_say_nothing_are_left_out() -> None:
    lines = [
        f'{COUNTERS[0]}{{service="chat"}} 3',
        f'{COUNTERS[0]}{{namespace="demo",service="chat"}} many',
        COUNTERS[0],
    ]
    lines += [f'{COUNTERS[0]}{{namespace="demo",service="chat"}} NaN', f"{COUNTERS[0]}_more{{}} 3", "# a comment"]
    assert read_page("\n".join(lines)) == {}


def test_what_happened_is_the_difference_over_all_gateways() -> None:
    before = seen(100, 10, 9, 50, 70) | {"g2": Seen(100, page(5, 5, 5, 5))}
    now = {"g1": page(12, 10, 60, 90), "g2": page(6, 5, 5, 5)}
    counted = tally(before, now, 100, 115, PERIOD_S)
    assert (counted.seconds, counted.rows) == (15, {CHAT: (3, 1, 10, 20)})


def test_a_gateway_that_restarted_counts_from_zero() -> None:
    assert tally(seen(100, 500, 500, 500, 500), {"g1": page(2, 1, 8, 9)}, 100, 115, PERIOD_S).rows == {
        CHAT: (2, 1, 8, 9)
    }


def test_a_new_gateway_only_begins_and_a_new_service_began_at_zero() -> None:
    counted = tally({}, {"g1": page(900, 900, 900, 900)}, 100, 115, PERIOD_S)
    assert counted.rows == {CHAT: (0, 0, 0, 0)}
    assert tally({"g1": Seen(100, {})}, {"g1": page(4, 4, 4, 4)}, 100, 115, PERIOD_S).rows == {CHAT: (4, 4, 4, 4)}


def test_what_was_counted_while_nobody_looked_belongs_to_no_time() -> None:
    assert tally(seen(100, 1, 1, 1, 1), {"g1": page(9, 9, 9, 9)}, 100, 400, PERIOD_S).rows == {}
    late = seen(100, 1, 1, 1, 1) | {"g2": Seen(385, page(1, 1, 1, 1))}
    both = {"g1": page(500, 500, 500, 500), "g2": page(2, 2, 2, 2)}
    assert tally(late, both, 385, 400, PERIOD_S).rows == {CHAT: (1, 1, 1, 1)}


def test_no_answer_and_a_clock_that_went_back_are_no_time_at_all() -> None:
    assert tally(seen(100, 1, 1, 1, 1), {}, 100, 115, PERIOD_S).seconds == 0
    assert tally(seen(100, 1, 1, 1, 1), {"g1": page(2, 2, 2, 2)}, 100, 99, PERIOD_S).seconds == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.sets(st.integers(0, 39)))
def test_whatever_restarts_nothing_is_counted_twice_and_nothing_negative(grown: list[int], restarts: set[int]) -> None:
    value, before, counted, lost = 0.0, {"g1": Seen(0, page(0, 0, 0, 0))}, 0.0, 0.0
    for number, more in enumerate(grown, start=1):
        if number - 1 in restarts:
            value = 0.0
        value += more
        row: Row = (value, value, value, value)
        now_s = number * PERIOD_S
        found = tally(before, {"g1": {CHAT: row}}, now_s - PERIOD_S, now_s, PERIOD_S).rows[CHAT][0]
        assert found >= 0
        counted += found
        lost += more - found if number - 1 in restarts else 0.0
        before = {"g1": Seen(now_s, {CHAT: row})}
    assert counted + lost == sum(grown)
    assert lost >= 0
