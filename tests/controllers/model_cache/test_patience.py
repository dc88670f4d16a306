"""How long the agent waits after a failure."""

from __future__ import annotations

import pytest

from controllers.model_cache.errors import FetchError, Interrupted, NoRoom, SourceRefused, WrongContent
from controllers.model_cache.patience import Failure, after


def waits_s(error: FetchError, tries: int, received_bytes: int = 0) -> list[float]:
    failure: Failure | None = None
    found = []
    for _ in range(tries):
        failure = after(failure, error, received_bytes=received_bytes, now_s=0.0, chance=0.5)
        found.append(failure.not_before_s)
    return found


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Interrupted("x"), [1, 2, 4, 8, 16, 32, 60, 60]),
        (SourceRefused("x"), [15, 30, 60, 120, 240, 480, 600, 600]),
        (WrongContent("x"), [60, 120, 240, 480, 960, 1920, 3600, 3600]),
        (NoRoom("x"), [15, 30, 60, 120, 240, 300, 300, 300]),
    ],
)
def test_patience_doubles_up_to_a_limit(error: FetchError, expected: list[float]) -> None:
    assert waits_s(error, 8) == pytest.approx(expected)


def test_an_interruption_that_brought_bytes_is_tried_again_soon_every_time() -> None:
    assert waits_s(Interrupted("x"), 5, received_bytes=1) == pytest.approx([1] * 5)


def test_wrong_bytes_are_no_progress() -> None:
    assert waits_s(WrongContent("x"), 3, received_bytes=1) == pytest.approx([60, 120, 240])


def test_nodes_that_failed_together_come_back_apart() -> None:
    early, late = (after(None, NoRoom("x"), received_bytes=0, now_s=100.0, chance=one) for one in (0.0, 1.0))
    assert (early.not_before_s, late.not_before_s) == pytest.approx((112.0, 118.0))


def test_a_thousand_failures_do_not_overflow() -> None:
    assert after(Failure("x", 1000, 0.0), NoRoom("x"), received_bytes=0, now_s=0.0, chance=0.5).not_before_s == 300
