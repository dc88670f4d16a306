"""The card's runner on Triton's interpreter: static buffers, rows, graphs' replays and sampling, without a card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.worker_image.gpu.engines import SLOTS, cpu_engine, gpu_engine, rerun, shape_folder, tokens_of
from worker_image.engine.host_blocks import HostBlocks, SwapCosts
from worker_image.engine.messages import Add, Sampling
from worker_image.engine.standing import Standing

PROMPTS: Final = [[5, 9, 200], [7] * 21, list(range(40, 77)), [3]]
GREEDY: Final = Sampling(6, temperature=0.0)
# Padding's rows are computed from whatever memory holds.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shape_folder(tmp_path)


def test_greedy_tokens_are_the_references_whatever_shares_the_steps(folder: Path) -> None:
    # Lengths differ, so that batches shrink, rows change hands, and chunks run beside decodes.
    sampling = [replace(GREEDY, max_tokens=n) for n in (6, 2, 4, 9)]
    wanted = tokens_of(cpu_engine(folder), PROMPTS, sampling)
    assert tokens_of(gpu_engine(folder), PROMPTS, sampling) == wanted


def test_replayed_steps_give_the_same_tokens_and_captures_touch_nothing(folder: Path) -> None:
    prompts, sampling = PROMPTS[:2], replace(GREEDY, max_tokens=4)
    wanted = tokens_of(cpu_engine(folder), prompts, sampling)
    engine = gpu_engine(folder, rerun)
    # The first run captures between its steps, the second replays every decode.
    assert tokens_of(engine, prompts, sampling) == wanted
    while engine.prepare():
        pass
    assert tokens_of(engine, prompts, sampling) == wanted


def test_more_requests_than_rows_wait_and_start_from_nothing_of_those_before(folder: Path) -> None:
    prompts = [[40 + i] * (3 + 5 * i) for i in range(6)]
    sampling = replace(GREEDY, max_tokens=2)
    assert tokens_of(gpu_engine(folder, rerun), prompts, sampling) == tokens_of(cpu_engine(folder), prompts, sampling)


def test_a_seeded_request_draws_the_same_tokens_alone_and_in_a_batch(folder: Path) -> None:
    seeded = Sampling(4, temperature=0.9, top_p=0.95, seed=11)
    (alone,) = tokens_of(gpu_engine(folder), PROMPTS[:1], seeded)
    together = tokens_of(gpu_engine(folder), PROMPTS[:3], [seeded, *[replace(seeded, seed=None)] * 2])
    assert together[0] == alone


def test_biases_penalties_and_least_lengths_are_those_of_the_reference(folder: Path) -> None:
    (free,) = tokens_of(cpu_engine(folder), PROMPTS[:1], GREEDY)
    asked = [
        replace(GREEDY, logit_bias=((free[0], -100.0), (17, 3.0))),
        replace(GREEDY, repetition_penalty=1.8, frequency_penalty=0.7),
        replace(GREEDY, min_tokens=3, stop_ids=(free[0], free[1])),
        GREEDY,
    ]
    prompts = [PROMPTS[0]] * 4
    assert tokens_of(gpu_engine(folder, rerun), prompts, asked) == tokens_of(cpu_engine(folder), prompts, asked)


def test_log_probabilities_are_the_models_own_before_any_bias(folder: Path) -> None:
    sampling = replace(GREEDY, max_tokens=3, top_logprobs=2, logit_bias=((9, 50.0),))
    found = []
    for engine in (cpu_engine(folder), gpu_engine(folder, rerun)):
        engine.add(Add(0, PROMPTS[0], sampling))
        steps = [engine.step() for _ in range(5)]
        found.append([logprobs for step in steps for _, logprobs in step.logprobs])
    wanted, ours = found
    assert len(ours) == 3
    for a, b in zip(wanted, ours, strict=True):
        assert b.chosen == pytest.approx(a.chosen, abs=1e-4)
        assert [token for token, _ in b.top] == [token for token, _ in a.top]


def test_one_whose_blocks_were_in_host_memory_goes_on_where_it_was(folder: Path) -> None:
    sampling, urgent = replace(GREEDY, max_tokens=8), replace(GREEDY, max_tokens=2)
    wanted = tokens_of(cpu_engine(folder), [*PROMPTS, [8, 9]], [sampling] * 4 + [urgent])
    engine = gpu_engine(folder, host=HostBlocks(SLOTS, SwapCosts(recompute_s=1.0, copy_s=0.1, fixed_s=0.0)))
    for request_id, prompt in enumerate(PROMPTS):
        engine.add(Add(request_id, list(prompt), sampling, standing=Standing(priority=3)))
    results: list[list[int]] = [[] for _ in wanted]
    asked = False
    while engine.has_work:
        step = engine.step()
        for request_id, token in zip(step.ids, step.new_tokens, strict=True):
            results[request_id].append(token)
        if len(results[0]) == 3 and not asked:
            asked = True
            engine.add(Add(4, [8, 9], urgent, standing=Standing(priority=0)))
    assert results == wanted
    assert engine.load.preemptions_by_class == [0, 0, 0, 1]
    assert engine.load.restored_tokens > 0


def test_deterministic_mode_gives_the_references_tokens_too(folder: Path) -> None:
    assert tokens_of(gpu_engine(folder, deterministic=True), PROMPTS[:2], GREEDY) == tokens_of(
        cpu_engine(folder), PROMPTS[:2], GREEDY
    )
