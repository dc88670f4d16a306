"""SmolLM2-135M-Instruct, the checkpoint of the demo: the same tokens as two independent implementations give.

Needs the package of `e2e/checkpoint.txt`. Without it these tests fail rather than skip: they are the proof that the
worker computes the right thing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from e2e import checkpoint as checkpoints
from tests.worker_image.engines import SMALL, an_engine, tokens
from tests.worker_image.prompts import PROMPTS
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.tokenizer import Vocabulary, load_vocabulary
from worker_image.engine.messages import Sampling

pytestmark = pytest.mark.checkpoint
N_TOKENS = 16
BATCH = 8
END = 2
"""<|im_end|>"""
TOKEN_IDS = Path(__file__).parent.parent / "golden/smollm2_token_ids.json"
"""Token ids of the prompts and of odd texts, as llama.cpp 0.3.36 gives them for the same file."""


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    return checkpoints.path()


@pytest.fixture(scope="module")
def vocabulary(checkpoint: Path) -> Vocabulary:
    return load_vocabulary(GgufFile(checkpoint))


@pytest.fixture(scope="module")
def prompts(vocabulary: Vocabulary) -> list[list[int]]:
    return [vocabulary.encode(text, add_bos=False) for text in PROMPTS]


def greedy_by_transformers(model: PreTrainedModel, batch: list[list[int]]) -> list[list[int]]:
    longest = max(map(len, batch))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in batch])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch])
    config = GenerationConfig(max_new_tokens=N_TOKENS, do_sample=False, eos_token_id=END, pad_token_id=END)
    generated = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    return [until_end(answer) for answer in generated[:, longest:].tolist()]


def until_end(answer: list[int]) -> list[int]:
    return answer[: answer.index(END) + 1] if END in answer else answer


def test_token_ids_are_those_of_llama_cpp(vocabulary: Vocabulary) -> None:
    expected: dict[str, list[int]] = json.loads(TOKEN_IDS.read_text())
    assert set(PROMPTS) < set(expected)
    assert {text: vocabulary.encode(text, add_bos=False) for text in expected} == expected


def test_greedy_tokens_are_those_of_transformers_alone_and_in_a_batch(
    checkpoint: Path, prompts: list[list[int]]
) -> None:
    assert len(prompts) >= 20
    # One thread: on a busy machine two that wait for each other are slower than one.
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(checkpoint.parent, gguf_file=checkpoint.name, dtype=torch.float32)
    batches = [prompts[at : at + BATCH] for at in range(0, len(prompts), BATCH)]
    expected = [answer for batch in batches for answer in greedy_by_transformers(model, batch)]
    del model
    engine = an_engine(checkpoint, replace(SMALL, step_tokens=256, max_model_len=512))
    sampling = Sampling(N_TOKENS, temperature=0.0, stop_ids=(END,))
    batched = [answer for batch in batches for answer in tokens(engine, batch, sampling)]
    assert batched == expected
    assert [tokens(engine, [prompt], sampling)[0] for prompt in prompts] == expected
