"""What follows from an SLA's numbers."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.plans.sla import assess, contradiction, error_budget_s
from controllers.plans.units import bytes_text, duration_text, names_text
from crds.sla import SLASpec


def sla(**fields: Any) -> SLASpec:
    return SLASpec.model_validate({"priority": "P1", **fields})


def test_the_error_budget_is_the_missing_share_of_the_window() -> None:
    status = assess(sla(availability="99.9%", window="28d"), 1, []).fields
    assert status["errorBudget"] == "40m19s"
    assert error_budget_s(sla(availability="99%", window="1h")) == 36.0


def test_without_an_availability_there_is_no_error_budget() -> None:
    assert "errorBudget" not in assess(sla(), 1, []).fields


@pytest.mark.parametrize("availability", ["0%", "0.00%"])
def test_an_availability_of_zero_is_refused_with_an_example(availability: str) -> None:
    wrong = contradiction(sla(availability=availability, window="1d"))
    assert wrong is not None
    assert wrong.reason == "AvailabilityZero"
    assert 'Write for example "99.9%"' in wrong.message


def test_two_tokens_that_take_longer_than_the_whole_answer_are_refused_with_the_sum() -> None:
    result = assess(sla(targets={"ttft": "900ms", "tpot": "200ms", "e2e": "1s"}), 3, [])
    ready, stalled = result.conditions
    assert (ready["status"], stalled["status"]) == ("False", "True")
    assert ready["message"] == (
        "An answer of two tokens may take ttft 900ms + tpot 200ms = 1.1s, but e2e allows 1s."
        " Raise targets.e2e or lower the others."
    )


def test_a_time_per_token_longer_than_the_whole_answer_is_refused() -> None:
    wrong = contradiction(sla(targets={"tpot": "2s", "e2e": "1s"}))
    assert wrong is not None
    assert "tpot 2s = 2s" in wrong.message


@pytest.mark.parametrize(("ttft_ms", "tpot_ms"), [(100, 200), (700, 100), (10, 60)])
def test_targets_that_just_fit_together_stand(ttft_ms: int, tpot_ms: int) -> None:
    targets = {"ttft": f"{ttft_ms}ms", "tpot": f"{tpot_ms}ms", "e2e": f"{ttft_ms + tpot_ms}ms"}
    assert contradiction(sla(targets=targets)) is None
    assert contradiction(sla(targets=targets | {"e2e": f"{ttft_ms + tpot_ms - 1}ms"})) is not None


def test_ready_says_what_the_numbers_mean() -> None:
    spec = sla(targets={"ttft": "1s", "tpot": "50ms", "e2e": "30s"}, availability="99.9%", window="28d")
    (ready,) = assess(spec, 1, ["chat"]).conditions
    assert ready["message"] == (
        "P1: ttft ≤ 1s and tpot ≤ 50ms and e2e ≤ 30s for 99% of requests (answers of up to 581 tokens);"
        " 99.9% succeed, which allows 40m19s of full outage in 28d."
    )


def test_the_users_are_counted_and_named_in_order() -> None:
    fields = assess(sla(), 7, ["chat", "batch"]).fields
    assert (fields["services"], fields["usedBy"], fields["observedGeneration"]) == (2, ["batch", "chat"], 7)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (98_123_456, "98 MB"), (999_999, "1 MB"), (1_400_000_000, "1.4 GB")],
)
def test_sizes_have_two_or_three_digits_and_a_unit(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("value_s", "text"),
    [(0.0018, "1.8ms"), (1.5, "1.5s"), (2419.2, "40m19s"), (93784, "1d2h"), (86400, "1d"), (3600, "1h"), (60, "1m")],
)
def test_durations_have_their_two_largest_units(value_s: float, text: str) -> None:
    assert duration_text(value_s) == text


def test_long_lists_of_names_are_cut() -> None:
    assert names_text(["a"]) == "'a'"
    assert names_text(["a", "b"]) == "'a' and 'b'"
    assert names_text(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"
