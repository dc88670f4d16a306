"""Detokenisation, stop strings, chat template and tokenizer: text in, text out, whatever the cuts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker_image.tiny_gguf import SPECIAL_TOKENS, TEMPLATE, tiny_llama, write_gguf
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.tokenizer import Vocabulary, load_vocabulary
from worker_image.errors import CheckpointError, RequestError
from worker_image.text.chat_template import ChatTemplate
from worker_image.text.detokenizer import Detokenizer, TokenBytes
from worker_image.text.stop_strings import StopStrings


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return load_vocabulary(GgufFile(write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", tiny_llama())))


def decode_one_by_one(vocabulary: Vocabulary, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(TokenBytes(vocabulary.tokens, vocabulary.special_ids))
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.flush()]


@given(text=st.text(alphabet=st.characters(exclude_categories=("Cs",))))
def test_any_text_survives_encoding_and_decoding_token_by_token(vocabulary: Vocabulary, text: str) -> None:
    for special in SPECIAL_TOKENS:
        text = text.replace(special, "")
    assert "".join(decode_one_by_one(vocabulary, vocabulary.encode(text, add_bos=False))) == text


def test_a_character_of_several_tokens_is_given_out_whole(vocabulary: Vocabulary) -> None:
    pieces = decode_one_by_one(vocabulary, vocabulary.encode("a🙂b", add_bos=False))
    assert [piece for piece in pieces if piece] == ["a", "🙂", "b"]


def test_a_character_cut_off_by_the_end_is_shown_as_a_replacement(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode("🙂", add_bos=False)
    assert "".join(decode_one_by_one(vocabulary, ids[:2])) == "\ufffd"


def test_special_tokens_are_read_in_prompts_and_never_written_in_answers(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode("the<|im_end|>", add_bos=False)
    assert ids[-1] == 2
    assert "".join(decode_one_by_one(vocabulary, ids)) == "the"


def test_digits_are_split_as_the_checkpoint_was_trained(vocabulary: Vocabulary) -> None:
    one_by_one = [i for digit in "2026" for i in vocabulary.encode(digit, add_bos=False)]
    assert vocabulary.encode("2026", add_bos=False) == one_by_one


@given(
    text=st.text("abc", max_size=30), stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), data=st.data()
)
def test_stop_strings_cut_at_the_same_place_however_the_text_arrives(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    watcher, shown, at = StopStrings(stops), "", 0
    while at < len(text) and not watcher.stopped:
        size = data.draw(st.integers(1, 5))
        shown += watcher.push(text[at : at + size])
        at += size
        assert not any(stop in shown for stop in stops)
    shown += watcher.flush()
    # The text up to here decides: a stop string that completes earliest wins, and the leftmost match is cut.
    seen = text[:at]
    expected = min([seen.find(stop) for stop in stops if stop in seen], default=len(seen))
    assert shown == seen[:expected]


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    watcher = StopStrings(["\n\nUser:"])
    assert watcher.push("Hello\n") == "Hello"
    assert watcher.push("\nUs") == ""
    assert watcher.push("ually") == "\n\nUsually"


def test_the_template_sees_messages_and_begins_the_assistants_turn() -> None:
    template = ChatTemplate(TEMPLATE, bos_token="", eos_token="")
    assert template.render([{"role": "user", "content": "hi"}]) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__.__base__ }}",
        "{% set _ = messages.append(1) %}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ raise_exception('roles must alternate') }}",
        "{{ 1 + 'a' }}",
        "{{ 'a' * 2000000 }}",
        "{{ 3 ** 2000000 }}",
        "{{ messages[0]['content'].nothing.more }}",
    ],
)
def test_a_template_that_breaks_out_or_refuses_becomes_a_request_error(source: str) -> None:
    template = ChatTemplate(source, bos_token="", eos_token="")
    with pytest.raises(RequestError, match="the model's chat template"):
        template.render([{"role": "user", "content": "hi"}])


def test_a_template_that_does_not_compile_is_refused_at_start() -> None:
    with pytest.raises(CheckpointError, match="does not compile"):
        ChatTemplate("{% for %}", bos_token="", eos_token="")
