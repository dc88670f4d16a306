"""One replica: the iteration model, chunked prefill, admission by KV cache, preemption, jumps over iterations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from forecasting.profile import LLAMA_8B_H100, Profile
from forecasting.simulator.replica import Replica


def serve(profile: Profile, work: list[tuple[float, int, int]], step_s: float | None = None) -> tuple[list[float], ...]:
    """(first tokens, ends) of requests (arrival, input, output); `step_s` forces short advances instead of jumps."""
    first, done = [math.nan] * len(work), [math.nan] * len(work)
    replica = Replica(profile, first, done)
    now_s = 0.0
    for index, (arrival_s, inputs, outputs) in enumerate(work):
        while step_s is not None and now_s + step_s < arrival_s:
            now_s += step_s
            replica.advance(now_s)
        now_s = arrival_s
        replica.advance(arrival_s)
        replica.add(index, inputs, outputs, arrival_s)
    while not replica.is_idle:
        now_s += step_s or 3600.0
        replica.advance(now_s)
    assert replica.kv_tokens == 0
    assert replica.outstanding == 0
    return first, done


def test_a_lone_request_takes_its_prefill_and_one_iteration_a_token() -> None:
    profile = LLAMA_8B_H100
    first, done = serve(profile, [(0.0, 1000, 3)])
    prefill_s = 0.033e-3 * 1000 + 8e-3
    assert first[0] == pytest.approx(prefill_s)
    decode_s = sum(7e-3 + 39e-9 * (1000 + made) + 0.015e-3 for made in range(2))
    assert done[0] == pytest.approx(prefill_s + decode_s)


def test_a_long_prompt_is_prefilled_in_chunks() -> None:
    first, _ = serve(LLAMA_8B_H100, [(0.0, 5000, 1)])
    assert first[0] == pytest.approx(0.033e-3 * 5000 + 8e-3)


def test_a_prefill_slows_the_sequences_that_decode() -> None:
    alone = serve(LLAMA_8B_H100, [(0.0, 100, 50)])[1][0]
    beside = serve(LLAMA_8B_H100, [(0.0, 100, 50), (0.1, 2000, 1)])[1][0]
    assert beside - alone == pytest.approx(0.033e-3 * 2001 + 8e-3 - 7e-3, rel=0.05)


def test_what_does_not_fit_into_the_kv_cache_waits() -> None:
    profile = replace(LLAMA_8B_H100, kv_tokens=1500)
    first, done = serve(profile, [(0.0, 1000, 20), (0.0, 1000, 20)])
    assert first[1] > done[0]


def test_a_sequence_that_outgrows_the_cache_is_recomputed_and_ends() -> None:
    profile = replace(LLAMA_8B_H100, kv_tokens=1000)
    first, done = [math.nan] * 2, [math.nan] * 2
    replica = Replica(profile, first, done)
    for index in range(2):
        replica.add(index, 400, 300, 0.0)
    replica.advance(60.0)
    assert replica.preemptions == 1
    assert all(map(math.isfinite, done))
    assert replica.kv_tokens == 0


def test_jumping_over_iterations_gives_the_same_times_as_taking_each() -> None:
    random = np.random.default_rng(3)
    work = sorted(
        (float(random.uniform(0, 4)), int(random.integers(1, 3000)), int(random.integers(1, 200))) for _ in range(60)
    )
    profile = replace(LLAMA_8B_H100, kv_tokens=40_000, max_sequences=24)
    jumped, stepped = serve(profile, work), serve(profile, work, step_s=0.002)
    for fast, slow in zip(jumped, stepped, strict=True):
        assert fast == pytest.approx(slow, rel=1e-9)


def test_a_drained_replica_gives_back_what_it_has_not_ended() -> None:
    replica = Replica(LLAMA_8B_H100, [math.nan] * 3, [math.nan] * 3)
    for index in range(3):
        replica.add(index, 5000, 100, 0.0)
    replica.advance(0.2)
    assert replica.abandon() == [0, 1, 2]
    assert replica.is_idle
