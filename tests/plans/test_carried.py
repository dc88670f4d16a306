"""What one worker carries: said, within the SLA's targets by a measured profile, or learned."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.plans.capacity import UNBOUNDED_WORK_PER_S
from controllers.plans.carried import Known, MeanLengths, carried, profile_in, simulated, slo_of, targets_in
from crds.sla import Targets
from forecasting.capacity import best_rate
from tests.gen import measured_profile, service_spec

H100 = measured_profile("cpu 1")
CHAT = MeanLengths(1000.0, 200.0)
SILENT = service_spec(scaling={"max": 3, "targetConcurrency": 500})


def targets(**said: Any) -> Targets:
    return Targets.model_validate(said)


def test_a_persons_number_wins_over_everything() -> None:
    said = service_spec(scaling={"max": 3, "tokensPerSecond": 70})
    known = Known(targets(ttft="1s"), H100, CHAT, 90.0)
    assert (carried(said, known).work_per_s, carried(said, known).because) == (70, "as the spec says")


def test_the_targets_of_the_sla_bound_it_and_the_reason_is_arithmetic() -> None:
    one = carried(SILENT, Known(targets(ttft="1s", tpot="50ms"), H100, CHAT))
    assert one.work_per_s is not None
    requests_per_s = float(one.because.split(" ", 1)[0])
    assert one.work_per_s == pytest.approx(requests_per_s * (0.25 * 1000 + 200), rel=0.01)
    assert one.because.endswith("input tokens), the most with TTFT ≤ 1 s and TPOT ≤ 50 ms for 99%")
    assert 1 < one.running < 256, "more requests at once than keep the targets are not held"
    assert one.for_policy().because == one.because


def test_tighter_targets_carry_less() -> None:
    loose, tight = (
        carried(SILENT, Known(targets(ttft="1s", tpot=tpot), H100, CHAT)).work_per_s for tpot in ("50ms", "20ms")
    )
    assert loose is not None
    assert tight is not None
    assert tight < loose


@settings(deadline=None)
@given(
    st.sampled_from(["20ms", "30ms", "50ms", "200ms"]),
    st.sampled_from(["200ms", "1s", "10s"]),
    st.floats(1, 4000),
    st.floats(1, 2000),
)
def test_whatever_is_asked_the_answer_is_a_capacity(tpot: str, ttft: str, inputs: float, outputs: float) -> None:
    lengths = MeanLengths.of(100, 100 * inputs, 100 * outputs)
    one = carried(SILENT, Known(targets(ttft=ttft, tpot=tpot), H100, lengths, 40.0)).for_policy()
    assert 0 < one.work_per_s < UNBOUNDED_WORK_PER_S
    assert 1 <= one.running <= 500


def test_targets_that_no_load_keeps_leave_what_was_learned_and_are_told() -> None:
    one = carried(SILENT, Known(targets(tpot="2ms"), H100, CHAT, 90.0))
    assert one.work_per_s == 90
    assert one.because == "seen at work; no load would keep TPOT ≤ 2 ms for requests of 1e+03 + 200 tokens"


def test_targets_that_no_load_keeps_are_reckoned_with_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reckoned: list[object] = []
    reckon = best_rate

    def counted(*given: Any) -> tuple[float, float]:
        reckoned.append(given)
        return reckon(*given)

    monkeypatch.setattr("controllers.plans.carried.best_rate", counted)
    known = Known(targets(tpot="3ms"), H100, CHAT, 90.0)
    assert carried(SILENT, known) == carried(SILENT, known)
    assert len(reckoned) == 1


@pytest.mark.parametrize(
    "known",
    [
        Known(None, H100, CHAT, 90.0),
        Known(targets(e2e="30s"), H100, CHAT, 90.0),
        Known(targets(ttft="1s"), None, CHAT, 90.0),
        Known(targets(ttft="1s"), H100, None, 90.0),
    ],
    ids=["no SLA", "only an end-to-end target", "no profile", "no requests yet"],
)
def test_where_something_is_missing_it_is_what_was_learned(known: Known) -> None:
    one = carried(SILENT, known)
    assert (one.work_per_s, one.running, one.because) == (90, 500, "seen at work")


def test_where_nobody_knows_no_number_ever_binds() -> None:
    one = carried(SILENT, Known())
    assert (one.work_per_s, one.because) == (None, "not known yet")
    assert one.for_policy().work_per_s == UNBOUNDED_WORK_PER_S


def test_a_profile_is_that_of_the_services_accelerator() -> None:
    model = {"status": {"profiles": [H100.dump(), H100.dump() | {"accelerator": "gpu 1"}]}}
    found = profile_in(model, SILENT)
    assert found == H100
    assert simulated(H100).gamma_s == pytest.approx(39e-9)
    assert profile_in(model, service_spec(accelerator={"mig": {"profile": "1g.10gb"}})) is None
    assert profile_in(None, SILENT) is profile_in({"status": {}}, SILENT) is None


def test_targets_are_read_of_the_sla() -> None:
    assert targets_in({"spec": {"priority": "P1"}}) is targets_in(None) is None
    said = targets_in({"spec": {"priority": "P1", "targets": {"ttft": "500ms", "percentile": 95}}})
    slo = slo_of(said)
    assert slo is not None
    assert (slo.ttft_s, slo.tpot_s, slo.attainment) == (0.5, float("inf"), 0.95)


def test_lengths_are_means_of_enough_requests() -> None:
    assert MeanLengths.of(19, 1900, 1900) is None
    assert MeanLengths.of(100, 12_345, 0) == MeanLengths(120.0, 1.0)
