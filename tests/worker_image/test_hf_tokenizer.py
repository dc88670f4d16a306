"""Tokenizers of Hugging Face directories and of GGUF's other kinds: ids, special tokens, ends, templates, bytes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.worker_image.tiny_gguf import tiny_llama, write_gguf
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.pre_tokenizers import CUTTINGS
from worker_image.checkpoint.source import LoadFormat
from worker_image.checkpoint.token_bytes import most_bytes_a_token
from worker_image.checkpoint.tokenizer import Vocabulary, load_vocabulary
from worker_image.checkpoint.vocabulary import open_vocabulary
from worker_image.errors import CheckpointError, RequestError
from worker_image.text.chat_template import ChatTemplate
from worker_image.text.detokenizer import Detokenizer, TokenBytes, byte_alphabet

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2, "vocab_size": 300, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
}  # fmt: skip
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{{ eos_token }}"
PIECES = ("▁", "t", "h", "e", "th", "the", "▁the", "a", "▁a", "é", "th▁")
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=30)
SHARED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def byte_level() -> Tokenizer:
    """Ids: 256 bytes, then "th", "the", then the added tokens."""
    tokens = [*byte_alphabet(), "th", "the"]
    merges = [("t", "h"), ("th", "e")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    tokenizer.add_tokens([AddedToken("<think é>", special=False, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 258)])
    return tokenizer


def sentencepiece() -> Tokenizer:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    ids = {token: i for i, token in enumerate(tokens)}
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "a"), ("th", "▁")]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens[:3]])
    return tokenizer


def write(
    path: Path, tokenizer: Tokenizer, config: Mapping[str, Any] | None = None, **files: Mapping[str, Any]
) -> Path:
    tokenizer.save(str(path / "tokenizer.json"))
    settings_ = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "chat_template": TEMPLATE}
    (path / "tokenizer_config.json").write_text(json.dumps(settings_ | files.pop("tokenizer_config", {})))
    (path / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    (path / "model.safetensors").write_bytes(b"")
    for name, values in files.items():
        (path / f"{name}.json").write_text(json.dumps(values))
    return path


def shown(vocabulary: Vocabulary, ids: list[int]) -> str:
    detokenizer = Detokenizer(TokenBytes(vocabulary.tokens, vocabulary.special_ids))
    return "".join([*(detokenizer.push(i) for i in ids), detokenizer.flush()])


def test_special_tokens_and_their_uses_come_from_the_files(tmp_path: Path) -> None:
    vocabulary = open_vocabulary(write(tmp_path, byte_level()))
    assert (vocabulary.bos_id, vocabulary.bos_token, vocabulary.eos_token) == (258, "<s>", "</s>")
    assert vocabulary.special_ids == {258, 259}
    assert vocabulary.stop_ids == {259}
    assert vocabulary.add_bos
    assert len(vocabulary.tokens) == 300
    assert vocabulary.chat_template == TEMPLATE
    assert vocabulary.encode("the", add_bos=True) == [258, 257]
    assert shown(vocabulary, [258, 257, 260, 259]) == "the<think é>"


def test_a_prompt_is_neither_cut_nor_filled_up_where_the_file_kept_that_of_its_training(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.enable_truncation(max_length=4)
    tokenizer.enable_padding(length=6)
    vocabulary = open_vocabulary(write(tmp_path, tokenizer))
    assert vocabulary.encode("a" * 9, add_bos=False) == [vocabulary.tokens.index("a")] * 9
    assert vocabulary.encode("the", add_bos=False) == [257]


@pytest.mark.parametrize("listed", [7, [7, 8]])
def test_every_end_of_the_generation_config_stops(tmp_path: Path, listed: int | list[int]) -> None:
    path = write(tmp_path, byte_level(), {"eos_token_id": 3}, generation_config={"eos_token_id": listed})
    assert open_vocabulary(path).stop_ids == {259, *([listed] if isinstance(listed, int) else listed)}


def test_without_a_generation_config_the_models_own_end_stops(tmp_path: Path) -> None:
    path = write(tmp_path, byte_level(), {"eos_token_id": 3}, tokenizer_config={"eos_token": None})
    assert open_vocabulary(path).stop_ids == {3}


@SHARED
@given(text=ANY_TEXT)
@pytest.mark.parametrize("build", [byte_level, sentencepiece])
def test_any_text_survives_and_its_ids_are_those_of_transformers(tmp_path: Path, build: Any, text: str) -> None:
    for special in ("<s>", "</s>", "<unk>"):
        text = text.replace(special, "")
    path = tmp_path if (tmp_path / "tokenizer.json").exists() else write(tmp_path, build())
    vocabulary = open_vocabulary(path)
    ids = vocabulary.encode(text, add_bos=False)
    peer = PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
    assert ids == peer.encode(text, add_special_tokens=False)
    # SentencePiece writes a space before the text and cannot tell its own ▁ from one.
    expected = text if build is byte_level else "".join([" " if text else "", text]).replace("▁", " ")
    assert shown(vocabulary, ids) == expected


def composing() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


@SHARED
@given(text=ANY_TEXT | st.text("\u0390\u03b9\u0308\u0301\u1fbe\u212a▁<s>the ", max_size=30))
@pytest.mark.parametrize("build", [byte_level, sentencepiece, composing])
def test_no_text_has_more_bytes_than_its_tokens_can_stand_for(build: Any, text: str) -> None:
    tokenizer = build()
    most = most_bytes_a_token(tokenizer)
    assert most is not None
    assert len(text.encode()) <= most * len(tokenizer.encode(text, add_special_tokens=False).ids)


def stripping(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])


def deleting(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Replace(" ", "")


def cutting_out(tokenizer: Tokenizer) -> None:
    split = pre_tokenizers.Split(" ", "removed")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def swallowing_spaces(tokenizer: Tokenizer) -> None:
    tokenizer.add_special_tokens([AddedToken("<end>", rstrip=True)])


def without_bytes(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")


def of_words(tokenizer: Tokenizer) -> None:
    tokenizer.model = models.WordLevel({"the": 0, "?": 1}, unk_token="?")


@pytest.mark.parametrize("change", [stripping, deleting, cutting_out, swallowing_spaces, without_bytes, of_words])
def test_a_tokenizer_that_swallows_text_has_no_most_bytes_a_token(change: Any) -> None:
    tokenizer = byte_level()
    change(tokenizer)
    assert most_bytes_a_token(tokenizer) is None


def test_other_threads_go_on_while_a_long_text_is_tokenized(tmp_path: Path) -> None:
    vocabulary = open_vocabulary(write(tmp_path, byte_level()))
    tokenizing = threading.Thread(target=vocabulary.encode, args=("the end " * 150_000,), kwargs={"add_bos": False})
    tokenizing.start()
    n_turns = 0
    while tokenizing.is_alive():
        time.sleep(0.001)
        n_turns += 1
    assert n_turns > 5, "without the GIL there is a turn or two, before and after"


def test_a_template_file_and_a_list_of_named_templates_are_read(tmp_path: Path) -> None:
    entries = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    path = write(tmp_path, byte_level(), tokenizer_config={"chat_template": entries})
    assert open_vocabulary(path).chat_template == "D"
    (path / "chat_template.jinja").write_text("J")
    assert open_vocabulary(path).chat_template == "J"


def test_dummy_weights_need_no_tokenizer_and_take_token_ids_only(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    vocabulary = open_vocabulary(tmp_path, LoadFormat.DUMMY)
    assert len(vocabulary.tokens) == 300
    assert shown(vocabulary, [7, 299]) == "<7><299>"
    with pytest.raises(RequestError, match="no tokenizer; send token ids"):
        vocabulary.encode("text", add_bos=False)
    assert open_vocabulary(write(tmp_path, byte_level()), LoadFormat.DUMMY).encode("the", add_bos=False) == [257]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config": {"vocab_size": 259}}, "tokenizer.json: has token id 260; the model's vocabulary has ids 0 to 258"),
        ({"generation_config": {"eos_token_id": "x"}}, "generation_config.json: key 'eos_token_id' is 'x'"),
        ({"generation_config": {"eos_token_id": 300}}, "eos_token_id is 300; the vocabulary has ids 0 to 299"),
        ({"tokenizer_config": {"eos_token": None}}, "key 'eos_token_id' is absent, .*; nothing would end"),
        ({"tokenizer_config": {"bos_token": 7}}, "tokenizer_config.json: key 'bos_token' is '7'"),
        ({"tokenizer_config": {"chat_template": 7}}, "key 'chat_template' is '7'; it must be a string"),
        ({"tokenizer_config": {"chat_template": [{"name": "x"}]}}, "lists no template named 'default'"),
    ],
)
def test_files_that_contradict_each_other_are_refused(tmp_path: Path, changes: Any, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        open_vocabulary(write(tmp_path, byte_level(), **changes))


def test_a_missing_or_broken_tokenizer_is_refused_with_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, byte_level())
    (path / "tokenizer.json").write_text('{"model": {"type": "Nonsense"}}')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: is no tokenizer: "):
        open_vocabulary(path)
    (path / "tokenizer.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.json: no such file; this worker reads tokenizers from it alone"
    ):
        open_vocabulary(path)


def spm_gguf(path: Path) -> Vocabulary:
    contents = tiny_llama()
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    contents.metadata |= {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(PIECES),
        # The higher, the earlier it is merged.
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(PIECES))],
    }
    return load_vocabulary(GgufFile(write_gguf(path / "spm.gguf", contents)))


@SHARED
@given(text=ANY_TEXT.filter(lambda text: "<" not in text) | st.text("the aé ", max_size=20))
def test_sentencepiece_in_a_gguf_gives_the_ids_of_the_same_vocabulary_elsewhere(tmp_path: Path, text: str) -> None:
    vocabulary = spm_gguf(tmp_path)
    assert vocabulary.add_bos
    assert vocabulary.encode(text, add_bos=False) == sentencepiece().encode(text, add_special_tokens=False).ids
    assert shown(vocabulary, vocabulary.encode(text, add_bos=True)) == (" " + text if text else "").replace("▁", " ")


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("gpt-2", "I've  12345 x", ["I", "'ve", " ", " 12345", " x"]),
        ("smollm", "a 123", ["a", " ", "1", "2", "3"]),
        ("llama-bpe", "I'VE  12345 x\n\n y", ["I", "'VE", " ", " ", "123", "45", " x", "\n\n", " y"]),
        ("qwen2", "I'VE 123 (x)\n", ["I", "'VE", " ", "1", "2", "3", " (", "x", ")\n"]),
    ],
)
def test_text_is_cut_as_each_family_was_trained(name: str, text: str, pieces: list[str]) -> None:
    cut = CUTTINGS[name].pre_tokenizer().pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in cut] == pieces


def test_templates_get_what_transformers_gives_them() -> None:
    source = (
        "{{ bos_token }}{% for tool in tools %}{{ tool | tojson(indent=1, sort_keys=true) }}{% endfor %}"
        "{% generation %}{{ messages[0].content }}{% endgeneration %}{{ strftime_now('%Y') | length }}"
        "{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}"
    )
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    tools = [{"b": "<ü>", "a": 1}]
    text = template.render([{"role": "user", "content": "hi"}], {"tools": tools})
    assert text == '<s>{\n "a": 1,\n "b": "<ü>"\n}hi402'


@pytest.mark.parametrize(
    "source", ["{{ 1 / 0 }}", "{{ messages[9].x.y }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"]
)
def test_a_template_that_fails_in_any_way_becomes_a_request_error(source: str) -> None:
    with pytest.raises(RequestError, match="refuses these messages"):
        ChatTemplate(source, bos_token="", eos_token="").render([{"role": "user", "content": "hi"}])


def test_a_control_token_that_ends_a_turn_stops_whatever_the_files_end_is(tmp_path: Path) -> None:
    contents = tiny_llama()
    contents.metadata["tokenizer.ggml.eos_token_id"] = 0
    vocabulary = load_vocabulary(GgufFile(write_gguf(tmp_path / "tiny.gguf", contents)))
    assert {vocabulary.tokens[i] for i in vocabulary.stop_ids} == {"<|endoftext|>", "<|im_end|>"}
