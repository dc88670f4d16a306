"""What a worker says of itself, read with suspicion, and which of it means that it hangs."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.health.load import Evidence, Load, ProgressPolicy, hung, load_in
from tests.gateway.harness import load

POLICY = ProgressPolicy()
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def test_a_report_is_read() -> None:
    step = {"kind": "prefill", "expected_s": 2.5}
    told = load(running=3, waiting=2, kv_usage=0.25, utilisation=0.5, steps=9, stalled_s=1.5, step=step)
    expected = Load(True, False, 3, 2, 8, 0.25, 0.5, 9, 1.5, "prefill", 2.5)
    assert load_in(orjson.dumps(told)) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok",
        b"[]",
        b"{}",
        b'{"steps": 1}',
        b'{"steps": "x", "stalled_s": 1}',
        b"\xff",
        b'{"steps": 1, "stalled_s": "nan"}',
        b'{"steps": 1, "stalled_s": 0, "kv_usage": "inf"}',
    ],
)
def test_anything_else_is_no_report(body: bytes) -> None:
    assert load_in(body) is None


@given(st.sampled_from(sorted(load())), json_values)
def test_no_value_of_a_field_breaks_the_reading_and_shares_stay_shares(field: str, value: object) -> None:
    told = load_in(json.dumps(load() | {field: value}).encode())
    if told is not None:
        assert 0.0 <= told.kv_usage <= 1.0
        assert 0.0 <= told.utilisation <= 1.0
        assert told.running >= 0
        assert told.waiting >= 0


@pytest.mark.parametrize("slots", [-8, 0, None, False])
def test_a_number_of_slots_that_is_none_is_not_known(slots: object) -> None:
    told = load_in(orjson.dumps(load() | {"max_num_seqs": slots}))
    assert told is not None
    assert told.max_num_seqs is None


def test_a_worker_that_owes_tokens_and_makes_no_step_hangs() -> None:
    loss = hung(Load(running=3, waiting=1, stalled_s=1.9), POLICY)
    assert loss is not None
    assert loss.evidence is Evidence.HUNG
    assert loss.message == "4 requests and no step for 1.9 s > 1.8 s (no long step said)"
    assert hung(Load(running=3, stalled_s=1.7), POLICY) is None


@given(st.floats(0, 600), st.floats(0, 1))
def test_a_long_step_that_was_announced_is_no_hang_before_three_times_its_time(expected_s: float, part: float) -> None:
    allowed_s = 1.8 + 3 * expected_s
    assert hung(Load(stalled_s=allowed_s * part, step_kind="prefill", expected_s=expected_s), POLICY) is None
    assert hung(Load(stalled_s=allowed_s + 0.01, step_kind="prefill", expected_s=expected_s), POLICY) is not None


def test_one_that_still_loads_does_not_hang() -> None:
    assert hung(Load(ready=False, stalled_s=100.0), POLICY) is None
