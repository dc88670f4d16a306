"""The engine on small random models: against transformers, and against itself under other batches and memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.worker_image.engines import SMALL, an_engine, outputs, tokens
from tests.worker_image.tiny_gguf import Contents, Shape, tiny_llama, write_gguf
from worker_image.checkpoint.vocabulary import open_vocabulary
from worker_image.engine.batch import Batch
from worker_image.engine.host_blocks import SwapCosts
from worker_image.engine.memory import plan_kv
from worker_image.engine.messages import Add, Sampling, TokenOut
from worker_image.engine.runner import InFlight
from worker_image.engine.scheduler.settings import PolicyName, Scheduling
from worker_image.engine.standing import Standing
from worker_image.errors import CheckpointError, SettingsError
from worker_image.models.kv_cache import KvCache
from worker_image.text.detokenizer import TokenBytes
from worker_image.text.grammar import json_schema_grammar

GREEDY = Sampling(max_tokens=20, temperature=0.0)
SHAPES = [Shape(), Shape(layers=1, q_heads=4, kv_heads=4), Shape(layers=3, hidden=96, q_heads=6, kv_heads=2)]


def some_prompts(count: int, *, seed: int = 0, longest: int = 70) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 260, rng.integers(1, longest)).tolist() for _ in range(count)]


def reference(contents: Contents, shape: Shape) -> LlamaForCausalLM:
    """transformers' model with the same weights: rotary rows go from neighbours to halves."""
    head = shape.hidden // shape.q_heads
    config = LlamaConfig(
        vocab_size=len(contents.metadata["tokenizer.ggml.tokens"]), hidden_size=shape.hidden,
        intermediate_size=shape.ffn, num_hidden_layers=shape.layers, num_attention_heads=shape.q_heads,
        num_key_value_heads=shape.kv_heads, rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=1,
        eos_token_id=None, pad_token_id=0, max_position_embeddings=shape.context,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()

    def put(parameter: torch.nn.Parameter, name: str, *, rotary: bool = False) -> None:
        weight = torch.from_numpy(contents.tensors[name])
        if rotary:
            weight = weight.view(-1, head // 2, 2, shape.hidden).transpose(1, 2).reshape(weight.shape)
        parameter.data.copy_(weight)

    put(model.model.embed_tokens.weight, "token_embd.weight")
    put(model.model.norm.weight, "output_norm.weight")
    for i, layer in enumerate(model.model.layers):
        put(layer.input_layernorm.weight, f"blk.{i}.attn_norm.weight")
        put(layer.post_attention_layernorm.weight, f"blk.{i}.ffn_norm.weight")
        put(layer.self_attn.q_proj.weight, f"blk.{i}.attn_q.weight", rotary=True)
        put(layer.self_attn.k_proj.weight, f"blk.{i}.attn_k.weight", rotary=True)
        put(layer.self_attn.v_proj.weight, f"blk.{i}.attn_v.weight")
        put(layer.self_attn.o_proj.weight, f"blk.{i}.attn_output.weight")
        put(layer.mlp.gate_proj.weight, f"blk.{i}.ffn_gate.weight")
        put(layer.mlp.up_proj.weight, f"blk.{i}.ffn_up.weight")
        put(layer.mlp.down_proj.weight, f"blk.{i}.ffn_down.weight")
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", tiny_llama())


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_tokens_and_log_probabilities_are_those_of_transformers(tmp_path: Path, shape: Shape) -> None:
    contents = tiny_llama(shape, seed=3)
    model = reference(contents, shape)
    engine = an_engine(write_gguf(tmp_path / "tiny.gguf", contents))
    prompts = some_prompts(6)
    for prompt, result in zip(prompts, outputs(engine, prompts, replace(GREEDY, top_logprobs=3)), strict=True):
        generated = [token.token for token in result]
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + generated])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits, dim=-1)
        assert generated == expected.argmax(-1).tolist()
        for token, row in zip(result, expected, strict=True):
            assert token.logprobs is not None
            assert token.logprobs.chosen == pytest.approx(float(row.max()), abs=1e-4)
            assert [p for _, p in token.logprobs.top] == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)


def test_what_shares_the_batch_and_how_prompts_are_cut_changes_no_token(path: Path) -> None:
    prompts = some_prompts(8)
    alone = [tokens(an_engine(path, replace(SMALL, step_tokens=300)), [p], GREEDY)[0] for p in prompts]
    assert tokens(an_engine(path), prompts, GREEDY) == alone
    assert tokens(an_engine(path, replace(SMALL, step_tokens=9, block_tokens=16)), prompts, GREEDY) == alone


@pytest.mark.parametrize("gathered_bytes", [1, 64 << 20])
def test_a_long_request_does_not_make_the_short_ones_of_its_step_as_dear(
    path: Path, monkeypatch: pytest.MonkeyPatch, gathered_bytes: int
) -> None:
    monkeypatch.setattr("worker_image.engine.cpu_runner.GATHERED_BYTES", gathered_bytes)
    sampling = Sampling(8, temperature=0.0)
    prompts = [list(range(3, 203)), *some_prompts(7, longest=20)]
    alone = [tokens(an_engine(path), [prompt], sampling)[0] for prompt in prompts]
    gathered, gather = list[int](), KvCache.gather

    def counting(cache: KvCache, layer: int, blocks: torch.Tensor) -> list[torch.Tensor]:
        gathered.append(blocks.numel())
        return gather(cache, layer, blocks)

    monkeypatch.setattr(KvCache, "gather", counting)
    engine, most = an_engine(path), 0
    launch = engine._runner.launch

    def counted(batch: Batch) -> InFlight:
        nonlocal most
        gathered.clear()
        flight = launch(batch)
        most = max(most, sum(gathered))
        return flight

    monkeypatch.setattr(engine._runner, "launch", counted)
    assert tokens(engine, prompts, sampling) == alone
    n_blocks = sum(-(-(len(prompt) + sampling.max_tokens) // SMALL.block_tokens) for prompt in prompts)
    assert 0 < most <= 2 * n_blocks * Shape().layers, "padding at most doubles what a step reads"


def test_preemption_changes_no_token(path: Path) -> None:
    prompts = some_prompts(8, longest=40)
    sampling = [Sampling(40, temperature=0.8, seed=i, presence_penalty=0.5) for i in range(8)]
    plenty = tokens(an_engine(path), prompts, sampling)
    tight = an_engine(path, replace(SMALL, max_model_len=100, kv_cache_bytes=110 * 2 * 2 * 32 * 4))
    assert tokens(tight, prompts, sampling) == plenty
    assert tight.load.preemptions > 0
    assert tight.load.kv_usage == 0


@pytest.mark.parametrize("policy", [policy for policy in PolicyName if policy is not PolicyName.FCFS])
def test_one_that_gives_way_keeps_its_sampler_its_penalties_and_its_grammar(path: Path, policy: PolicyName) -> None:
    """Every kind of state: noise, penalties, a grammar, a least number of tokens, log probabilities."""
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 30, "maxItems": 30}
    kinds = [
        Sampling(60, temperature=0.8, seed=1),
        Sampling(60, temperature=0.9, seed=2, presence_penalty=0.7, repetition_penalty=1.2),
        Sampling(60, temperature=1.0, seed=3, grammar=json_schema_grammar(schema)),
        Sampling(60, temperature=0.7, seed=4, stop_ids=tuple(range(3, 40)), min_tokens=50, top_logprobs=2),
    ]
    prompts = some_prompts(6, longest=20)
    urgent = [Sampling(4, temperature=0.8, seed=9), Sampling(4, temperature=0.8, seed=10)]
    alone = [outputs(an_engine(path), [prompt], own)[0] for prompt, own in zip(prompts, [*kinds, *urgent], strict=True)]
    settings = replace(SMALL, max_num_seqs=4, scheduling=Scheduling(policy))
    engine = an_engine(path, settings)
    results: list[list[TokenOut]] = [[] for _ in prompts]

    def step() -> None:
        for token in engine.step().tokens:
            results[token.request_id].append(token)

    for i, own in enumerate(kinds):
        engine.add(Add(i, list(prompts[i]), own, standing=Standing(priority=3)))
    # Long enough that feedback has seen who is long.
    while any(len(result) < 10 for result in results[:4]):
        step()
    for i in (4, 5):
        engine.add(Add(i, list(prompts[i]), urgent[i - 4], standing=Standing(priority=0)))
    while engine.has_work:
        step()
    assert [[token.token for token in result] for result in results] == [[t.token for t in each] for each in alone]
    assert [result[-1].finish for result in results] == [each[-1].finish for each in alone]
    for mine, theirs in zip(results[3], alone[3], strict=True):
        assert mine.logprobs is not None
        assert theirs.logprobs is not None
        assert mine.logprobs.chosen == pytest.approx(theirs.logprobs.chosen, abs=1e-4)
    gave_way = engine.load.preemptions_by_class[3]
    assert gave_way == (0 if policy is PolicyName.FEEDBACK else 2)


def test_what_was_kept_in_host_memory_changes_no_token(path: Path) -> None:
    prompts = some_prompts(8, longest=40)
    sampling = [Sampling(40, temperature=0.8, seed=i, presence_penalty=0.5 * (i % 2)) for i in range(8)]
    plenty = tokens(an_engine(path), prompts, sampling)
    settings = replace(SMALL, max_model_len=100, kv_cache_bytes=110 * 2 * 2 * 32 * 4, swap_bytes=1 << 20)
    tight = an_engine(path, replace(settings, n_threads=1))
    # This model is too small for a swap to be worth it: its costs are those of a large one.
    assert tight._scheduler._host is not None
    tight._scheduler._host._costs = SwapCosts(recompute_s=1.0, copy_s=0.1, fixed_s=0.0)
    assert tokens(tight, prompts, sampling) == plenty
    assert tight.load.preemptions > 0
    assert tight.load.restored_tokens > 0


def test_a_cancelled_request_frees_its_blocks_and_changes_no_other(path: Path) -> None:
    prompts = some_prompts(3)
    expected = tokens(an_engine(path), prompts[:1], GREEDY)[0]
    engine = an_engine(path)
    for request_id, prompt in enumerate(prompts):
        engine.add(Add(request_id, list(prompt), GREEDY))
    got = [t.token for _ in range(3) for t in engine.step().tokens if t.request_id == 0]
    engine.cancel(1)
    engine.cancel(2)
    while engine.has_work:
        got += [token.token for token in engine.step().tokens]
    assert got == expected
    assert engine.load.kv_usage == 0


def test_what_the_cache_has_of_a_prompt_changes_no_token(path: Path) -> None:
    start, sampling = some_prompts(1, longest=40)[0], Sampling(12, temperature=0.9, seed=4, frequency_penalty=0.3)
    prompts = [start, [*start, 7, 8, 9], [*start[: len(start) // 2], 11], start]
    alone = [tokens(an_engine(path), [prompt], sampling)[0] for prompt in prompts]
    engine = an_engine(path)
    one_by_one = [tokens(engine, [prompt], sampling)[0] for prompt in prompts]
    assert one_by_one == tokens(engine, prompts, sampling) == alone
    assert engine.load.prefix_hit_tokens > 0.5 * engine.load.prefix_queried_tokens


def test_choices_are_what_requests_with_their_seeds_would_be(path: Path) -> None:
    prompt = some_prompts(1)[0]
    one = Sampling(10, temperature=1.0, seed=40)
    alone = [tokens(an_engine(path), [prompt], replace(one, seed=40 + i))[0] for i in range(3)]
    engine = an_engine(path)
    engine.add(Add(0, list(prompt), replace(one, n=3)))
    got: dict[int, list[int]] = {}
    while engine.has_work:
        for token in engine.step().tokens:
            got.setdefault(token.request_id, []).append(token.token)
    assert got == dict(enumerate(alone))
    assert len({tuple(choice) for choice in alone}) == 3


@pytest.mark.parametrize("n_before", [1, 7, 19])
def test_a_request_that_goes_on_elsewhere_gives_the_tokens_it_would_have_given(path: Path, n_before: int) -> None:
    prompt = some_prompts(1)[0]
    sampling = Sampling(20, temperature=0.8, seed=3, presence_penalty=0.7, repetition_penalty=1.1, min_tokens=20)
    whole = tokens(an_engine(path), [prompt], sampling)[0]
    elsewhere = an_engine(path, replace(SMALL, step_tokens=11, block_tokens=8))
    elsewhere.add(Add(0, prompt + whole[:n_before], sampling, n_generated=n_before))
    rest = []
    while elsewhere.has_work:
        rest += [token.token for token in elsewhere.step().tokens]
    assert whole[:n_before] + rest == whole


def test_an_answer_with_a_schema_is_json(path: Path) -> None:
    schema = {
        "type": "object", "required": ["a", "b"], "additionalProperties": False,
        "properties": {"a": {"type": "boolean"}, "b": {"enum": ["yes", "no"]}},
    }  # fmt: skip
    sampling = Sampling(200, temperature=1.0, grammar=json_schema_grammar(schema))
    engine = an_engine(path)
    answers = tokens(engine, some_prompts(3), [replace(sampling, seed=i) for i in range(3)])
    vocabulary = open_vocabulary(path)
    spelling = TokenBytes(vocabulary.tokens, vocabulary.special_ids)
    for answer in answers:
        assert answer[-1] in vocabulary.stop_ids
        value = json.loads(b"".join(spelling.of(token) for token in answer))
        assert isinstance(value["a"], bool)
        assert value["b"] in ("yes", "no")


def test_a_seed_gives_the_same_tokens_in_any_company_and_another_seed_others(path: Path) -> None:
    prompt = some_prompts(1)[0]
    seeded = Sampling(20, temperature=1.0, seed=11)
    alone = tokens(an_engine(path), [prompt], seeded)[0]
    company = [seeded, *(Sampling(20, temperature=1.0) for _ in range(5))]
    assert tokens(an_engine(path), [prompt] * 6, company)[0] == alone
    assert tokens(an_engine(path), [prompt], replace(seeded, seed=12))[0] != alone


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}], ids=str)
def test_the_narrowest_filter_leaves_the_likeliest_token(path: Path, narrow: dict[str, float]) -> None:
    prompts = some_prompts(3)
    sampling = Sampling(10, temperature=2.0, seed=1, **narrow)  # type: ignore[arg-type]
    assert tokens(an_engine(path), prompts, sampling) == tokens(
        an_engine(path), prompts, replace(GREEDY, max_tokens=10)
    )


def test_a_frequency_penalty_drives_repetition_out(path: Path) -> None:
    prompts = some_prompts(4)
    free = tokens(an_engine(path), prompts, replace(GREEDY, max_tokens=60))
    fined = tokens(an_engine(path), prompts, Sampling(60, temperature=0.0, frequency_penalty=2.0, presence_penalty=2.0))
    assert sum(len(set(t)) for t in fined) > sum(len(set(t)) for t in free)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"general.architecture": "mamba"}, "architecture 'mamba' is not supported; this worker has llama"),
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2.0}, "rope scaling 'longrope' is not"),
        ({"llama.attention.head_count_kv": 3}, "query heads must be a multiple of KV heads"),
        ({"llama.block_count": 3}, "tensor 'blk.2.attn_norm.weight' is missing"),
        ({"llama.block_count": 1}, "tensor 'blk.1.attn_q.weight' is none that architecture 'llama' has"),
        ({"llama.feed_forward_length": 128}, r"'blk.0.ffn_gate.weight' is \[96, 64\]; it must be \[128, 64\]"),
        ({"llama.context_length": "long"}, "'llama.context_length' is 'long'; it must be an integer"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_with_a_sentence(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    contents = tiny_llama()
    contents.metadata |= change
    with pytest.raises(CheckpointError, match=sentence):
        an_engine(write_gguf(tmp_path / "tiny.gguf", contents))


def test_kv_room_is_computed_and_a_contradiction_is_refused() -> None:
    plan = plan_kv(replace(SMALL, max_model_len=100, kv_cache_bytes=100_000), 256, 64, free_bytes=0)
    assert (plan.n_blocks, plan.max_model_len) == (200, 100)
    assert plan_kv(replace(SMALL, kv_cache_bytes=6_400), 256, 64, free_bytes=0).max_model_len == 100
    with pytest.raises(SettingsError, match="room for 100 tokens at 64 bytes each; one request of 101 tokens must fit"):
        plan_kv(replace(SMALL, max_model_len=101, kv_cache_bytes=6_400), 256, 64, free_bytes=0)
    with pytest.raises(SettingsError, match="the model was trained for 256 tokens"):
        plan_kv(replace(SMALL, max_model_len=257), 256, 64, free_bytes=10**9)
