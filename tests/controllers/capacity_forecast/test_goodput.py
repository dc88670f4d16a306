"""Requests in time, summed over gateways that come, go and begin anew."""

from __future__ import annotations

from controllers.capacity_forecast.goodput import Goodput
from controllers.history.interface import ServiceId
from forecasting.policy import Judged

CHAT = ServiceId("demo", "chat")


def page(came: float, good: float, service: str = "chat") -> str:
    labels = f'namespace="demo",service="{service}"'
    return (
        f"foretide_gateway_completed_total{{{labels}}} {came}\n"
        f"foretide_gateway_good_requests_total{{{labels}}} {good}\n"
    )


def test_what_gateways_count_is_added_up_from_where_they_are_found() -> None:
    seen = Goodput()
    assert seen.judged(CHAT) is None
    seen.hear({"a": page(100, 90), "b": page(10, 10)}, 15.0)
    assert seen.judged(CHAT) is None
    seen.hear({"a": page(120, 105), "b": page(15, 14)}, 30.0)
    assert seen.judged(CHAT) == Judged(30.0, 25.0, 19.0)


def test_a_gateway_that_is_new_or_was_started_again_adds_nothing_at_first() -> None:
    seen = Goodput()
    seen.hear({"a": page(100, 90)}, 15.0)
    seen.hear({"a": page(110, 100), "b": page(500, 1)}, 30.0)
    seen.hear({"a": page(3, 3), "b": page(504, 3)}, 45.0)
    assert seen.judged(CHAT) == Judged(45.0, 14.0, 12.0)


def test_silence_leaves_the_time_where_it_was() -> None:
    seen = Goodput()
    seen.hear({"a": page(0, 0)}, 15.0)
    seen.hear({"a": page(4, 4)}, 30.0)
    seen.hear({}, 45.0)
    assert seen.judged(CHAT) == Judged(30.0, 4.0, 4.0)


def test_a_service_that_no_gateway_shows_any_more_is_forgotten() -> None:
    seen = Goodput()
    seen.hear({"a": page(0, 0)}, 15.0)
    seen.hear({"a": page(4, 4)}, 30.0)
    seen.hear({"a": page(1, 1, "other")}, 45.0)
    assert seen.judged(CHAT) is None
