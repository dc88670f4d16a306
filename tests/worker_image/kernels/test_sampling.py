from __future__ import annotations

import pytest
import torch

from tests.worker_image.kernels.gen import randn
from worker_image.engine.noise import exponential
from worker_image.kernels.checks import KernelError
from worker_image.kernels.sampling import (
    SamplingParameters,
    kept_reference,
    noise_reference,
    sample,
    sample_reference,
)

Row = tuple[float, int, float, float]
GREEDY: Row = (0.0, 0, 1.0, 0.0)
PLAIN: Row = (0.7, 0, 1.0, 0.0)


def draw(
    logits: torch.Tensor, rows: list[Row], seeds: list[int], positions: list[int]
) -> tuple[list[int], torch.Tensor]:
    temperature, top_k, top_p, min_p = zip(*rows, strict=True)
    parameters = SamplingParameters(
        torch.tensor(temperature),
        torch.tensor(top_k, dtype=torch.int32),
        torch.tensor(top_p),
        torch.tensor(min_p),
        torch.tensor(seeds),
        torch.tensor(positions),
    )
    tokens = torch.full((len(rows),), -1, dtype=torch.int64)
    logprobs = torch.zeros(len(rows))
    sample(logits, parameters, tokens, logprobs)
    return tokens.tolist(), logprobs


def test_greedy_takes_the_first_of_equals_and_reports_its_log_probability() -> None:
    logits = randn(3, 8300)
    logits[0, [17, 8250]] = 9.0
    logits[1, 8299] = 11.0
    tokens, logprobs = draw(logits, [GREEDY] * 3, [0] * 3, [0] * 3)
    assert tokens == [17, 8299, int(logits[2].argmax())]
    expected = logits.double().log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
    torch.testing.assert_close(logprobs.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("filters", [(0, 1.0, 0.0), (7, 1.0, 0.0), (0, 0.8, 0.0), (50, 0.6, 0.0), (0, 1.0, 0.3),
                                     (1, 1.0, 0.0), (0, 0.0, 0.0), (10**6, 0.99, 0.01)])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_draw_is_the_references_for_every_filter(filters: tuple[int, float, float], dtype: torch.dtype) -> None:
    logits = randn(4, 501, dtype=dtype) * 3 - 2
    rows: list[Row] = [(0.7, *filters)] * 4
    seeds, positions = [0, 2**63 - 1, 12345, 2**33], [0, 7, 2**31 + 5, 99]
    tokens, _ = draw(logits, rows, seeds, positions)
    for i, token in enumerate(tokens):
        noise = noise_reference(seeds[i], positions[i], logits.shape[1])
        assert token == sample_reference(logits[i], *rows[i], noise)


def test_what_may_be_drawn_is_drawn_by_its_share_and_nothing_else() -> None:
    logits = randn(1, 40).expand(40, 40).contiguous()
    row = (1.0, 6, 0.9, 0.05)
    tokens, _ = draw(logits, [row] * 40, [3] * 40, list(range(40)))
    kept = kept_reference(logits[0], *row).nonzero().flatten().tolist()
    assert set(tokens) <= set(kept)
    assert len(set(tokens)) > 2
    shares = torch.tensor([tokens.count(token) / 40 for token in kept])
    torch.testing.assert_close(shares, logits[0, kept].softmax(-1), rtol=0.0, atol=0.2)


def test_a_row_draws_the_same_alone_and_in_a_batch() -> None:
    logits = randn(3, 300)
    rows: list[Row] = [PLAIN, (1.3, 20, 0.9, 0.0), GREEDY]
    together, _ = draw(logits, rows, [5, 6, 7], [1, 2, 3])
    alone, _ = draw(logits[1:2], rows[1:2], [6], [2])
    assert together[1:2] == alone


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = torch.full((8, 9000), -torch.inf)
    logits[:, [3, 8800]] = 0.0
    tokens, _ = draw(logits, [(1.0, 5, 0.99, 0.0)] * 4 + [PLAIN] * 4, list(range(8)), [1] * 8)
    assert set(tokens) == {3, 8800}


def test_a_token_that_runs_alone_wins_whatever_its_noise() -> None:
    # Of 32 bits that are nearly all zero, as come once in some thirty million tokens.
    seed, position, token = 0, 4580, 4407
    assert noise_reference(seed, position, 8000)[token] > 18.0
    logits = torch.full((3, 8000), -torch.inf)
    logits[:, token] = -3.0
    logits[1:] = logits[1:].clamp(min=-20.0)
    tokens, logprobs = draw(logits, [PLAIN, (1.0, 1, 1.0, 0.0), (1.0, 0, 1.0, 0.5)], [seed] * 3, [position] * 3)
    assert tokens == [token] * 3
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[:, token])


def test_a_wrong_argument_is_refused_with_its_name() -> None:
    with pytest.raises(KernelError, match=r"seeds has shape \(1,\); the kernel takes \(2\)"):
        draw(randn(2, 10), [GREEDY] * 2, [0], [0, 0])


def test_the_noise_is_the_engines_own() -> None:
    for seed, position in ((0, 0), (2**64 - 1, 77), (12345, 2**31 + 9)):
        expected = exponential(seed, position, torch.arange(1000))
        torch.testing.assert_close(noise_reference(seed, position, 1000).float(), expected)
