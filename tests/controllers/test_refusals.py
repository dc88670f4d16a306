"""Since when something is not taken, and how often that is told."""

from datetime import UTC, datetime, timedelta

from controllers.refusals import Refusals
from kube.errors import Unavailable

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def away(request: int) -> Unavailable:
    return Unavailable(f"Request {request} failed.", status_code=503)


def hear(refusals: Refusals, at_s: float) -> bool:
    """A text that is another at each attempt."""
    return refusals.hear("child", away(int(at_s)), NOW + timedelta(seconds=at_s), generation=1)


def test_what_may_pass_by_itself_is_told_once_it_lasts_and_not_at_each_attempt() -> None:
    refusals = Refusals()
    assert [hear(refusals, at_s) for at_s in (0, 29, 30, 31, 59, 60)] == [False, False, True, False, False, True]


def test_a_clock_that_is_set_back_silences_nothing_for_long() -> None:
    refusals = Refusals()
    assert not hear(refusals, 3600)
    assert [hear(refusals, at_s) for at_s in (0, 29, 30)] == [False, False, True]
    assert refusals.told("child") == "Request 30 failed. It is tried again."
    assert [hear(refusals, at_s) for at_s in (-3600, -3570)] == [False, True], "what was told in no past is told anew"
