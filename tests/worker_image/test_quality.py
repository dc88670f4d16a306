"""What the worker counts of its answers, and that no word of them is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker_image.scripted import Server, a_server
from tests.worker_image.test_metrics import samples
from worker_image.engine.messages import Add, Logprobs, TokenOut
from worker_image.server.quality import LAST_TOKENS, OPENING_CHARS, AnswerSoFar, refuses, repetition

CHAT: Any = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("ids", "share"),
    [([], 0.0), ([1, 1, 1], 0.0), ([1, 2, 3, 4, 5, 6, 7], 0.0), ([7] * 23, 19 / 20), ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5)],
)
def test_repetition_is_the_share_of_runs_of_four_that_were_there_before(ids: list[int], share: float) -> None:
    assert repetition(ids) == pytest.approx(share)


@given(st.lists(st.integers(0, 5), max_size=60))
def test_repetition_is_a_share(ids: list[int]) -> None:
    assert 0.0 <= repetition(ids) < 1.0


@pytest.mark.parametrize(
    "opening",
    [
        "I'm sorry, but I can't help with that.",
        "  I\u2019m sorry, but no.",
        '"I cannot provide',
        "**As an AI model",
        "I am unable to",
        "Unfortunately, I cannot",
    ],
)
def test_answers_that_begin_like_a_refusal_are_seen(opening: str) -> None:
    assert refuses(opening)


@pytest.mark.parametrize("opening", ["", "Sure! I can't wait to help.", "Paris.", "Icannot", "Leider kann ich nicht"])
def test_others_are_not(opening: str) -> None:
    assert not refuses(opening)


def test_of_a_long_answer_the_end_and_the_beginning_are_kept_and_no_more() -> None:
    answer = AnswerSoFar()
    for number in range(2000):
        answer.take([TokenOut(1, number)], "word ")
    assert len(answer._last) == LAST_TOKENS
    assert len(answer._opening) < 2 * OPENING_CHARS
    assert answer.repetition == 0.0
    for _ in range(LAST_TOKENS):
        answer.take([TokenOut(1, 5)], "word ")
    assert answer.repetition > 0.99, "it loops now"


def test_surprise_is_the_mean_of_what_was_told() -> None:
    answer = AnswerSoFar()
    assert answer.surprise_nats is None
    answer.take([TokenOut(1, 1, logprobs=Logprobs(-0.5)), TokenOut(1, 2, logprobs=Logprobs(-1.5))], "a")
    assert answer.surprise_nats == pytest.approx(1.0)


def says(add: Add, number: int) -> str:
    return "I cannot do that" if add.sampling.seed == 1 else "abcabcabcabcabcabc"


async def ask(server: Server, **more: Any) -> None:
    await server.client.chat.completions.create(**{**CHAT, "max_tokens": 100, **more})


async def test_a_workers_page_tells_what_its_answers_were_like(tmp_path: Path) -> None:
    async with a_server(tmp_path, says) as server:
        await ask(server)
        await ask(server, seed=1, logprobs=True)
        stream = await server.client.chat.completions.create(**CHAT, max_tokens=100, stream=True)
        assert [chunk async for chunk in stream]
        await ask(server, max_tokens=1)
        found = await samples(server)
    assert found["foretide_worker_answer_tokens_count"] == 3, "the probe is none of them"
    assert found["foretide_worker_answer_refusals_total"] == 1
    assert found["foretide_worker_answer_surprise_nats_count"] == 1
    assert found["foretide_worker_answer_surprise_nats_sum"] == pytest.approx(0.5)
    assert found["foretide_worker_answer_repetition_sum"] > 0
