"""The torch sampler: what each parameter does to a distribution that is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from worker_image.engine.messages import Sampling
from worker_image.engine.sampler import sample
from worker_image.engine.sequence import Sequence
from worker_image.kernels.sampling import kept_reference, noise_reference, sample_reference

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 3.0, -2.0])
N_DRAWS = 4000
STOP = 4


def a_sequence(tokens: list[int], n_prompt: int = 1, seed: int = 5, **sampling: Any) -> Sequence:
    return Sequence(0, tokens, Sampling(99, **sampling), limit=99, n_prompt=n_prompt, seed=seed)


def draws(n: int = N_DRAWS, **sampling: Any) -> torch.Tensor:
    """Share of each token over many seeds."""
    sequences = [a_sequence([0], seed=seed, **sampling) for seed in range(n)]
    tokens = sample(LOGITS.repeat(n, 1), sequences).tokens
    return torch.bincount(torch.tensor(tokens), minlength=6) / n


def chosen(tokens: list[int], n_prompt: int = 1, **sampling: Any) -> int:
    return sample(LOGITS[None].clone(), [a_sequence(tokens, n_prompt, temperature=0.0, **sampling)]).tokens[0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_with_their_probabilities(temperature: float) -> None:
    expected = torch.softmax(LOGITS / temperature, -1)
    # Five standard deviations of the share of the likeliest.
    assert torch.allclose(draws(temperature=temperature), expected, atol=5 * (0.25 / N_DRAWS) ** 0.5)


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({"top_k": 2}, [4, 0]),
        # Probabilities are 0.63, 0.23, 0.09, 0.03: the third begins at 0.86.
        ({"top_p": 0.85}, [4, 0]),
        ({"top_p": 0.87}, [4, 0, 1]),
        ({"min_p": 0.1}, [4, 0, 1]),
        ({"min_p": 0.3, "top_k": 5}, [4, 0]),
    ],
    ids=str,
)
def test_filters_keep_the_likeliest_in_their_proportions(filters: dict[str, float], kept: list[int]) -> None:
    expected = torch.zeros(6)
    expected[kept] = torch.softmax(LOGITS[kept], -1)
    assert torch.allclose(draws(**filters), expected, atol=5 * (0.25 / N_DRAWS) ** 0.5)


def test_a_token_depends_on_its_seed_and_place_and_not_on_its_batch() -> None:
    sequences = [a_sequence([0] * length, seed=seed) for seed in range(20) for length in (1, 2, 3)]
    alone = [sample(LOGITS[None].clone(), [s]).tokens[0] for s in sequences]
    together = sample(LOGITS.repeat(60, 1), sequences[::-1]).tokens[::-1]
    assert together == alone
    assert len(set(alone)) > 1


def test_bias_penalties_and_minimum_change_the_likeliest() -> None:
    assert chosen([0]) == STOP
    assert chosen([0], logit_bias=((2, 4.0),)) == 2
    assert chosen([0], logit_bias=((STOP, -100.0),)) == 0
    assert chosen([0, STOP], presence_penalty=1.5) == 0
    assert chosen([STOP, 1], presence_penalty=1.5) == STOP, "what the client wrote is not penalised"
    assert chosen([0, STOP], frequency_penalty=0.6) == STOP
    assert chosen([0, STOP, STOP], frequency_penalty=0.6) == 0
    assert chosen([STOP], repetition_penalty=2.0) == 0, "repetition counts the prompt as well"
    assert chosen([0], stop_ids=(STOP,), min_tokens=1) == 0
    assert chosen([0, 1], stop_ids=(STOP,), min_tokens=1) == STOP


def test_what_was_generated_elsewhere_counts_as_generated() -> None:
    assert chosen([0, STOP], n_prompt=1, presence_penalty=1.5) == 0
    assert chosen([0, STOP], n_prompt=2, presence_penalty=1.5) == STOP


def test_log_probabilities_are_the_models_own() -> None:
    sequence = a_sequence([0], temperature=0.0, logit_bias=((2, 9.0),), top_logprobs=2)
    sampled = sample(LOGITS[None].clone(), [a_sequence([0]), sequence][1:])
    expected = torch.log_softmax(LOGITS, -1)
    assert sampled.tokens == [2]
    assert sampled.logprobs[0].chosen == pytest.approx(float(expected[2]))
    assert sampled.logprobs[0].top == [(4, pytest.approx(float(expected[4]))), (0, pytest.approx(float(expected[0])))]


@pytest.mark.parametrize("spread", [0.3, 4.0], ids=["flat", "peaked"])
@pytest.mark.parametrize("filters", [{"top_p": 0.9}, {"min_p": 0.02}, {"top_k": 2000, "top_p": 0.5}], ids=str)
def test_filters_of_a_large_vocabulary_keep_what_sorting_all_of_it_keeps(
    filters: dict[str, float], spread: float
) -> None:
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * spread
    kept = kept_reference(logits, 1.0, int(filters.get("top_k", 0)), filters.get("top_p", 1.0), filters.get("min_p", 0))
    seen = set()
    for seed in range(100):
        [token] = sample(logits[None].clone(), [a_sequence([0], seed=seed, **filters)]).tokens
        assert kept[token]
        seen.add(token)
        expected = sample_reference(logits, 1.0, int(filters.get("top_k", 0)), filters.get("top_p", 1.0),
                                    filters.get("min_p", 0), noise_reference(seed, 1, 5000))  # fmt: skip
        assert token == expected, "the card's reference draws the same"
    assert len(seen) > 1
