"""The GGUF reader and the dequantisation, against the `gguf` package and against damaged files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from threading import Event
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.worker_image.tiny_gguf import Shape, tiny_llama, write_gguf
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.gguf_checkpoint import GgufCheckpoint
from worker_image.checkpoint.quant import decode_tensor
from worker_image.checkpoint.source import find_gguf, verify_digest
from worker_image.checkpoint.tokenizer import load_vocabulary
from worker_image.errors import CheckpointError
from worker_image.models.rope import rope_table
from worker_image.models.tensors import expected_tensors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.gguf"


@pytest.mark.parametrize("encoding", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K"])
def test_every_encoding_is_read_bit_for_bit_as_the_gguf_package_reads_it(path: Path, encoding: str) -> None:
    write_gguf(path, tiny_llama(Shape(hidden=256, ffn=512)), encoding)
    file = GgufFile(path)
    for tensor in gguf.GGUFReader(path).tensors:
        expected = dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(
            decode_tensor(file, tensor.name), expected.reshape(file.tensors[tensor.name].shape)
        )


def test_metadata_comes_back_as_it_was_written(path: Path) -> None:
    contents = tiny_llama()
    contents.metadata["tokenizer.ggml.add_bos_token"] = True
    file = GgufFile(write_gguf(path, contents))
    for key, value in contents.metadata.items():
        assert file.metadata[key] == (pytest.approx(value) if isinstance(value, float) else value)


def test_a_file_cut_anywhere_is_refused_with_its_name(path: Path) -> None:
    whole = write_gguf(path, tiny_llama()).read_bytes()
    for length in [0, 1, 3, 4, 7, 8, 23, *range(24, len(whole), 997), len(whole) - 40]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"tiny\.gguf: .*\."):
            GgufFile(path)


def test_a_truncated_tensor_is_refused_with_its_name_and_sizes(path: Path) -> None:
    whole = write_gguf(path, tiny_llama()).read_bytes()
    path.write_bytes(whole[: len(whole) - 64])
    with pytest.raises(CheckpointError, match=r"tensor 'output_norm.weight' reaches byte \d+, the file has \d+\."):
        GgufFile(path)


def test_tensors_that_share_bytes_are_refused_with_both_names(path: Path) -> None:
    raw = bytearray(write_gguf(path, tiny_llama()).read_bytes())

    def offset_of(name: bytes) -> slice:
        """Behind the name stand the number of dimensions, two of them, and the encoding."""
        at = raw.index(name) + len(name) + 4 + 2 * 8 + 4
        return slice(at, at + 8)

    raw[offset_of(b"blk.1.attn_q.weight")] = raw[offset_of(b"blk.0.attn_q.weight")]
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"tensor 'blk\.1\.attn_q\.weight' overlaps 'blk\.0\.attn_q\.weight'"):
        GgufFile(path)


def test_no_byte_of_the_header_makes_the_reader_fail_otherwise_than_with_a_sentence(path: Path) -> None:
    whole = bytearray(write_gguf(path, tiny_llama()).read_bytes())
    rng = np.random.default_rng(1)
    n_refused = 0
    for at in rng.integers(0, 6000, 400):
        damaged = bytearray(whole)
        damaged[at] = int(rng.integers(0, 256))
        path.write_bytes(damaged)
        try:
            read_everything(path)
        except CheckpointError:
            n_refused += 1
    assert n_refused > 40


def read_everything(path: Path) -> None:
    file = GgufFile(path)
    load_vocabulary(file)
    for name in file.tensors:
        decode_tensor(file, name)
    checkpoint = GgufCheckpoint(path)
    for name in expected_tensors(checkpoint.config):
        checkpoint.read(name)


ANY_VALUE = st.one_of(
    st.integers(-(2**31), 2**31 - 1), st.floats(width=32), st.booleans(), st.text(max_size=8),
    st.sampled_from(["yarn", "linear", "none", "llama", "qwen2", "qwen3", "gpt2"]),
    st.lists(st.integers(0, 9), max_size=3),
)  # fmt: skip
KEYS = [
    *(key for key in tiny_llama().metadata if key != "tokenizer.ggml.tokens"), "llama.rope.scaling.type",
    "llama.rope.scaling.factor", "llama.rope.scaling.original_context_length", "llama.rope.scaling.yarn_beta_fast",
    "llama.rope.scaling.yarn_beta_slow", "llama.rope.scaling.attn_factor", "llama.rope.dimension_count",
    "llama.attention.key_length", "llama.attention.value_length", "general.alignment", "tokenizer.ggml.scores",
]  # fmt: skip


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.dictionaries(st.sampled_from(KEYS), ANY_VALUE, min_size=1, max_size=4),
    scaling=st.sampled_from([{}, {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0}]),
)
def test_no_metadata_does_worse_than_a_sentence_and_what_passes_has_a_rope_table(
    path: Path, changes: dict[str, Any], scaling: dict[str, Any]
) -> None:
    contents = tiny_llama()
    contents.metadata |= scaling | changes
    write_gguf(path, contents)
    with contextlib.suppress(CheckpointError):
        read_everything(path)
        config = GgufCheckpoint(path).config
        assert torch.isfinite(rope_table(config.rope, config.head_dim, 70)).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"llama.rope.scaling.type": "yarn"}, "'llama.rope.scaling.factor' is absent"),
        (
            {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0},
            "'llama.rope.scaling.original_context_length' is absent",
        ),
        ({"llama.rope.dimension_count": 8}, "partial rotary"),
        ({"llama.rope.freq_base": float("inf")}, "'llama.rope.freq_base' is 'inf'; it must be a number"),
        ({"llama.block_count": 2**30}, "n_layers is 1073741824; at most 4096"),
        ({"llama.block_count": 4000}, "4000 layers but only 20 tensors"),
        ({"llama.context_length": 2**30}, "context is 1073741824; at most 2097152"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(path: Path, change: dict[str, Any], sentence: str) -> None:
    contents = tiny_llama()
    contents.metadata |= change
    with pytest.raises(CheckpointError, match=sentence):
        GgufCheckpoint(write_gguf(path, contents))


@pytest.mark.parametrize(
    ("factors", "sentence"),
    [(np.ones(7), r"'rope_freqs.weight' is \[7\]; it must be \[8\]"), (np.zeros(8), "not positive numbers")],
)
def test_frequency_factors_that_do_not_fit_are_refused(path: Path, factors: Any, sentence: str) -> None:
    contents = tiny_llama()
    contents.tensors["rope_freqs.weight"] = factors.astype(np.float32)
    with pytest.raises(CheckpointError, match=sentence):
        GgufCheckpoint(write_gguf(path, contents))


def test_an_unknown_quantisation_is_refused_with_file_tensor_and_what_is_read(path: Path) -> None:
    contents = tiny_llama()
    contents.encodings["blk.0.ffn_up.weight"] = 13
    write_gguf(path, contents)
    with pytest.raises(CheckpointError, match=r"tensor 'blk.0.ffn_up.weight' is quantised as Q5_K; .* F32, F16, Q4_0"):
        GgufFile(path)


def test_a_file_that_is_no_gguf_is_refused(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 something else entirely")
    with pytest.raises(CheckpointError, match="no GGUF file"):
        GgufFile(path)


def test_a_pre_tokenizer_we_do_not_know_is_refused(path: Path) -> None:
    contents = tiny_llama()
    contents.metadata["tokenizer.ggml.pre"] = "tekken"
    with pytest.raises(CheckpointError, match="pre-tokenizer 'tekken' is unknown"):
        load_vocabulary(GgufFile(write_gguf(path, contents)))


def test_a_wrong_digest_is_refused_with_both(path: Path) -> None:
    write_gguf(path, tiny_llama())
    with pytest.raises(CheckpointError, match=r"has digest sha256:[0-9a-f]{64}, sha256:0{64} was asked for"):
        verify_digest(path, "sha256:" + "0" * 64, Event())


def test_a_digest_in_another_form_is_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match="digest 'md5:1' is not understood"):
        verify_digest(path, "md5:1", Event())


def test_a_directory_must_hold_exactly_one_checkpoint(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no \*\.gguf file"):
        find_gguf(path.parent)
    write_gguf(path, tiny_llama())
    assert find_gguf(path.parent) == path
    path.with_name("other.gguf").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"2 \*\.gguf files \(other\.gguf, tiny\.gguf\)"):
        find_gguf(path.parent)
