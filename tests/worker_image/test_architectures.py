"""Every architecture and rope scaling on random weights, through files and the paged cache, against transformers."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from tests.worker_image.engines import SMALL, an_engine
from tests.worker_image.engines import tokens as engine_tokens
from tests.worker_image.gguf_models import contents_of
from tests.worker_image.hf_models import CONFIGS, VOCAB, random_model, save
from tests.worker_image.paged import Paged
from tests.worker_image.tiny_gguf import write_gguf
from worker_image.checkpoint.open import open_checkpoint
from worker_image.engine.messages import Sampling
from worker_image.models.assembly import load_model
from worker_image.models.decoder import Decoder
from worker_image.models.linear import Linear
from worker_image.models.reference_ops import ReferenceOps, ReferenceStep

N_NEW = 12
LENGTHS = (1, 9, 14, 3)
"""With the new tokens the longest passes the dynamic scaling's trained context and every window."""


def prompts() -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, VOCAB, length).tolist() for length in LENGTHS]


def a_decoder(path: Path, dtype: torch.dtype = torch.float32) -> Decoder[Linear, ReferenceStep]:
    return load_model(open_checkpoint(path), ReferenceOps(dtype), lambda _done, _total: None)


@torch.inference_mode()
def greedy_by_transformers(model: PreTrainedModel, prompt: list[int]) -> tuple[list[int], torch.Tensor]:
    """Token by token with its cache: the tokens, and the logits (N_NEW, vocab) that chose them."""
    output = model(torch.tensor([prompt]), use_cache=True)
    rows = [output.logits[0, -1]]
    while len(rows) < N_NEW:
        output = model(rows[-1].argmax().view(1, 1), past_key_values=output.past_key_values, use_cache=True)
        rows.append(output.logits[0, -1])
    return [int(row.argmax()) for row in rows], torch.stack(rows)


@pytest.fixture(params=CONFIGS, scope="module")
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, Path]:
    model = random_model(CONFIGS[request.param])
    return model, save(model, tmp_path_factory.mktemp("model"))


def test_greedy_tokens_in_float32_are_those_of_transformers_however_prompts_are_cut(
    saved: tuple[PreTrainedModel, Path],
) -> None:
    model, path = saved
    expected = [greedy_by_transformers(model, prompt) for prompt in prompts()]
    for chunk in (100, 5):
        tokens, logits = Paged(a_decoder(path), len(LENGTHS), 32).greedy(prompts(), N_NEW, chunk)
        assert tokens == [own for own, _ in expected]
        torch.testing.assert_close(logits, torch.stack([rows for _, rows in expected]), atol=2e-4, rtol=2e-4)


def test_logits_in_bfloat16_are_within_its_rounding(saved: tuple[PreTrainedModel, Path]) -> None:
    model, path = saved
    prompt = prompts()[2]
    with torch.inference_mode():
        exact = model(torch.tensor([prompt])).logits[0, -1]
        peer = copy.deepcopy(model).to(torch.bfloat16)(torch.tensor([prompt])).logits[0, -1].float()
    _, logits = Paged(a_decoder(path, torch.bfloat16), 1, 32).greedy([prompt], 1, 100)
    # The peer's own distance from float32 is what bfloat16 costs; ours may not be much more.
    error, peer_error = ((row - exact).norm() / exact.norm() for row in (logits[0, 0].float(), peer))
    assert error < max(1.5 * peer_error, 0.01)


@pytest.mark.parametrize(
    "name",
    ["llama", "llama with one KV head of its own size", "llama, linear", "llama, llama3", "llama, yarn",
     "mistral", "mistral with a sliding window", "qwen2", "qwen3", "qwen3 with tied output"],
)  # fmt: skip
def test_a_gguf_of_the_same_weights_gives_the_same_tokens(name: str, tmp_path: Path) -> None:
    model = random_model(CONFIGS[name])
    expected = [greedy_by_transformers(model, prompt) for prompt in prompts()]
    path = write_gguf(tmp_path / "model.gguf", contents_of(model))
    tokens, logits = Paged(a_decoder(path), len(LENGTHS), 32).greedy(prompts(), N_NEW, 5)
    assert tokens == [own for own, _ in expected]
    torch.testing.assert_close(logits, torch.stack([rows for _, rows in expected]), atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", ["qwen2", "mistral with a sliding window"])
def test_the_engine_serves_a_directory_with_the_tokens_of_transformers(name: str, tmp_path: Path) -> None:
    model = random_model(CONFIGS[name])
    engine = an_engine(save(model, tmp_path / "model"), replace(SMALL, max_model_len=64))
    expected = [greedy_by_transformers(model, prompt)[0] for prompt in prompts()]
    assert engine_tokens(engine, prompts(), Sampling(N_NEW, temperature=0.0)) == expected
