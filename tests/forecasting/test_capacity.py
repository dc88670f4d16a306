"""Profiles, the capacity they give, and the capacity that a service shows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from forecasting.capacity import capacity_of, replicas_for
from forecasting.errors import BadSetting
from forecasting.profile import LLAMA_8B_H100, Profile, profile_from_json, profile_to_json
from forecasting.simulator.arrivals import lengths_of
from forecasting.simulator.world import Slo


def chat(inputs: float = 1000.0, outputs: float = 200.0) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    spread = np.linspace(0.2, 1.8, 500)
    return inputs * spread, np.maximum(outputs * spread, 1)


def test_the_arithmetic_of_a_capacity_adds_up() -> None:
    one = capacity_of(LLAMA_8B_H100, lengths_of(*chat()), Slo())
    work = one.requests_per_s * (200 + one.input_weight * 1000)
    assert one.work_per_s == pytest.approx(work, rel=0.01)
    assert 0 < one.input_weight <= 1
    assert "requests/s × (200 output +" in one.message


@pytest.mark.parametrize(
    ("easier", "harder"),
    [
        (lengths_of(*chat(500)), lengths_of(*chat(1500))),
        (lengths_of(*chat(1000, 100)), lengths_of(*chat(1000, 400))),
    ],
    ids=["inputs", "outputs"],
)
def test_longer_requests_leave_fewer_of_them(easier: object, harder: object) -> None:
    low, high = (capacity_of(LLAMA_8B_H100, each, Slo()).requests_per_s for each in (harder, easier))  # type: ignore[arg-type]
    assert low < high


def test_tighter_targets_leave_less() -> None:
    lengths = lengths_of(*chat())
    assert (
        capacity_of(LLAMA_8B_H100, lengths, Slo(tpot_s=0.03)).requests_per_s
        < capacity_of(LLAMA_8B_H100, lengths, Slo(tpot_s=0.05)).requests_per_s
    )


def test_targets_that_no_load_meets_are_refused_with_what_to_do() -> None:
    with pytest.raises(BadSetting, match=r"even without load\. Loosen the targets"):
        capacity_of(LLAMA_8B_H100, lengths_of(*chat()), Slo(tpot_s=0.001))


def test_replicas_for_a_load_with_its_peak_factor_and_reserve() -> None:
    assert replicas_for(300.0, 100.0) == 3
    assert replicas_for(300.0, 100.0, peak_factor=1.5, reserve=1) == 6


def test_a_profile_reads_back_as_it_was_written() -> None:
    assert profile_from_json(profile_to_json(LLAMA_8B_H100), "p.json") == LLAMA_8B_H100


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"alpha_s": -1}, "alpha_s is -1"),
        ({"alpha_s": "fast"}, "alpha_s is 'fast'"),
        ({"max_sequences": 1.5}, "max_sequences is 1.5"),
        ({"colour": 1}, "unknown field 'colour'"),
        ({"beta_s": None}, "beta_s is None"),
        ({"max_sequences": 4096}, "leaves no room for prefill"),
    ],
)
def test_a_bad_profile_is_refused_with_its_field(change: dict[str, object], says: str) -> None:
    raw = json.loads(profile_to_json(LLAMA_8B_H100)) | change
    with pytest.raises(BadSetting, match=says):
        profile_from_json(json.dumps(raw), "p.json")


def test_a_profile_that_is_no_object_or_lacks_a_field_is_refused() -> None:
    for text, says in (("[", "not JSON"), ("[]", "an object"), ("{}", "'accelerator' is missing")):
        with pytest.raises(BadSetting, match=says):
            profile_from_json(text, "p.json")


def test_memory_or_arithmetic_is_the_limit_of_an_iteration() -> None:
    profile = Profile("m", "a", 0.01, 1e-5, 1e-8, 1e-4, 0.0, 1000, 8, 64)
    assert profile.iteration_s(1, 0, 0) == pytest.approx(0.01 + 1e-5)
    assert profile.iteration_s(0, 200, 0) == pytest.approx(0.02)
