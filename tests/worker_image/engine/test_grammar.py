"""Grammars: what a matcher allows, and that one that fails or is slow concerns its own request only."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import numpy as np
import orjson
import pytest
import torch
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer, decoders, models

from tests.worker_image.engine.fake_engine import Fake, expected
from tests.worker_image.engine.test_scheduling import an_add
from worker_image.engine.compiling import Compiling
from worker_image.engine.core import Engine
from worker_image.engine.grammar import Grammars, Matcher
from worker_image.engine.messages import Add, Finish, Ready, Sampling
from worker_image.engine.sampler import sample
from worker_image.engine.sequence import Sequence
from worker_image.engine.standing import Standing
from worker_image.errors import CheckpointError

TOKENS = [*"abcdefghijk", "<eos>"]
"""As many as the fake device's vocabulary."""
EOS = len(TOKENS) - 1
ANY = '{"grammars": [{"lark_grammar": "start: /[a-k]*/"}]}'
BS_THEN_C = '{"grammars": [{"lark_grammar": "start: /b+c/"}]}'


def grammars() -> Grammars:
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(TOKENS)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    return Grammars(tokenizer.to_str(), len(TOKENS), [EOS])


def advanced(matcher: Matcher, tokens: list[int]) -> Matcher:
    for token in tokens:
        matcher.advance(token)
    return matcher


def allowed(matcher: Matcher, n_words: int = 2) -> list[int]:
    mask = np.full(n_words, -1, np.int32)
    matcher.fill(mask)
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


@pytest.mark.parametrize(("generated", "then"), [([], [1]), ([1], [1, 2]), ([1, 2], [EOS])])
def test_only_what_the_grammar_allows_is_sampled(generated: list[int], then: list[int]) -> None:
    matcher = advanced(grammars().matcher(BS_THEN_C), generated)
    assert allowed(matcher) == then
    sequence = Sequence(0, [0, *generated], Sampling(9), limit=9, n_prompt=1, matcher=matcher)
    # The matrix is larger than the vocabulary, and its padding the likeliest.
    logits = torch.arange(40.0)[None]
    assert sample(logits, [sequence]).tokens[0] in then


def test_a_fork_goes_its_own_way() -> None:
    matcher = grammars().matcher(BS_THEN_C)
    fork = advanced(matcher.fork(), [1, 2])
    assert (allowed(matcher), allowed(fork)) == ([1], [EOS])


def test_only_requests_of_one_salt_share_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    made, compiled = grammars(), list[str]()

    def compiling(tokenizer: LLTokenizer, grammar: str, log_level: int) -> LLMatcher:
        compiled.append(grammar)
        return LLMatcher(tokenizer, grammar, log_level=log_level)

    monkeypatch.setattr("worker_image.engine.grammar.LLMatcher", compiling)
    for salt in ("acme", "acme", "globex", "acme"):
        made.matcher(BS_THEN_C, salt)
    assert len(compiled) == 2


def test_a_matcher_that_failed_says_so_in_a_line_and_forbids_nothing() -> None:
    matcher = advanced(grammars().matcher(BS_THEN_C), [0])
    assert (
        matcher.failure
        == "the grammar failed: Parser Error: token \"a\" doesn't satisfy the grammar; byte 'a' fails parse"
    )
    assert allowed(matcher, 1) == list(range(32))


def a_fake(load: object = grammars) -> Fake:
    fake = Fake.build(depth=1)
    fake.engine = Engine(fake.runner, fake.scheduler, Ready(40, 0, 0.0), load)  # type: ignore[arg-type]
    return fake


def with_grammar(request_id: int, grammar: str, n: int = 1) -> Add:
    return Add(request_id, [1, 2, 3], Sampling(12, seed=request_id, grammar=grammar, n=n))


def test_a_grammar_that_fails_ends_its_own_request_only() -> None:
    """The fake device samples what it likes, so that a strict grammar breaks at the first token."""
    fake = a_fake()
    fake.engine.add(with_grammar(0, BS_THEN_C))
    fake.engine.add(with_grammar(1, "{"))
    fake.engine.add(an_add(2, 5, 6))
    answers, ends = fake.run()
    assert ends[0].finish is ends[1].finish is Finish.REFUSED
    assert "doesn't satisfy the grammar" in (ends[0].message or "")
    assert (ends[1].message or "").startswith("the grammar failed: ")
    assert answers[2] == expected(an_add(2, 5, 6))[2]


def test_the_end_of_a_grammar_ends_its_choices() -> None:
    fake = a_fake()
    requests = [with_grammar(i, ANY, n=2) for i in (0, 20, 40, 60)]
    for request in requests:
        fake.engine.add(request)
    answers, ends = fake.run()
    for request in requests:
        for i, tokens in expected(request).items():
            until = tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens
            assert answers[i] == until
            assert ends[i].finish is (Finish.STOP if EOS in tokens else Finish.LENGTH)


def test_while_a_grammar_is_compiled_others_go_on_and_it_may_be_cancelled() -> None:
    may_go_on = threading.Event()

    def slow() -> Grammars:
        assert may_go_on.wait(30)
        return grammars()

    fake = a_fake(slow)
    fake.engine.add(with_grammar(0, ANY, n=2))
    fake.engine.add(an_add(5, 5, 6))
    while 5 not in fake.ends:
        fake.step()
    assert fake.engine.load.waiting == 1
    fake.engine.cancel(1)
    may_go_on.set()
    answers, _ = fake.run()
    assert set(answers) == {0, 5}


def test_a_model_without_a_tokenizer_refuses_grammars() -> None:
    def missing() -> Grammars:
        raise CheckpointError("tokenizer.json is missing")

    fake = a_fake(missing)
    fake.engine.add(with_grammar(0, ANY))
    _, ends = fake.run()
    assert ends[0].message == "this model cannot follow a grammar: tokenizer.json is missing"


def test_what_was_generated_elsewhere_has_gone_through_the_grammar() -> None:
    compiling = Compiling(grammars)
    compiling.submit(Add(0, [0, 1, 1], Sampling(9, grammar=BS_THEN_C), n_generated=2))
    [(_, matcher, error)] = compiling.done(30)
    assert error is None
    assert matcher is not None
    assert allowed(matcher) == [1, 2]


def test_tenants_take_turns_and_what_is_ready_is_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_go_on, compiled = threading.Event(), threading.Event(), list[str]()
    made = grammars()

    def matcher(grammar: str, salt: str = "") -> Matcher:
        compiled.append(salt)
        begun.set()
        assert may_go_on.wait(30)
        return Grammars.matcher(made, grammar, salt)

    monkeypatch.setattr(made, "matcher", matcher)
    compiling = Compiling(lambda: made)
    for request_id, tenant in enumerate(["acme", "acme", "acme", "globex"]):
        standing, salt = Standing(tenant=tenant), f"{tenant} {request_id}"
        compiling.submit(Add(request_id, [0], Sampling(9, grammar=ANY), cache_salt=salt, standing=standing))
    assert begun.wait(30)
    compiling.drop({0, 1})
    assert len(compiling) == 3, "only what has not begun is dropped"
    may_go_on.set()
    ready: list[int] = []
    while compiling:
        ready += [request.request_id for request, _, _ in compiling.done(30)]
    assert compiled == ["acme 0", "globex 3", "acme 2"]
    assert sorted(ready) == [0, 2, 3]


def test_what_is_ready_does_not_wait_for_what_came_before() -> None:
    compiling = Compiling(grammars)
    first, second = (Add(i, [0], Sampling(9, grammar=ANY)) for i in range(2))
    unfinished: Future[Matcher] = Future()
    compiling.submit(second)
    compiling._pending.insert(0, (first, unfinished))
    assert [request for request, _, _ in compiling.done(30)] == [second]
    assert len(compiling) == 1


def test_a_json_schema_of_the_server_is_understood() -> None:
    from worker_image.text.grammar import json_schema_grammar

    matcher = grammars().matcher(json_schema_grammar({"type": "object"}))
    assert matcher.failure is None
    assert orjson.loads(json_schema_grammar({"type": "object"}))["grammars"]
