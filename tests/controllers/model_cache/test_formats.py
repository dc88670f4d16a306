"""What passes as weights and what does not."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from controllers.model_cache.errors import WrongContent
from controllers.model_cache.formats import INDEX, JSON_MOST_BYTES, JSON_MOST_MARKS, check
from crds.model import ModelFormat
from tests.controllers.model_cache.files import gguf, safetensors


def put(folder: Path, **files: bytes) -> list[str]:
    names = [name.replace("__", ".") for name in files]
    for name, content in zip(names, files.values(), strict=True):
        (folder / name).write_bytes(content)
    return names


def test_gguf_and_safetensors_are_told_apart_by_their_content(tmp_path: Path) -> None:
    assert check(tmp_path, put(tmp_path, m__gguf=gguf()), None) is ModelFormat.GGUF
    assert check(tmp_path, put(tmp_path, m__safetensors=safetensors()), None) is ModelFormat.SAFETENSORS
    assert check(tmp_path, put(tmp_path, m__bin=safetensors()), None) is ModelFormat.SAFETENSORS


def test_another_format_than_the_spec_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongContent, match=r"The weights are gguf, spec\.format says safetensors"):
        check(tmp_path, put(tmp_path, m__gguf=gguf()), ModelFormat.SAFETENSORS)


def test_a_web_page_is_refused_with_what_it_starts_with(tmp_path: Path) -> None:
    with pytest.raises(WrongContent, match=r"'m\.gguf' starts with b'<!doctype ht', which is neither GGUF nor"):
        check(tmp_path, put(tmp_path, m__gguf=b"<!doctype html>"), None)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"GGUF\3\0\0\0", r"ends after 8 bytes; a GGUF header has 24"),
        (b"GGUF" + struct.pack("<IQQ", 9, 1, 1), r"is GGUF version 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1), r"claims 1152921504606846976 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1), r"claims 0 tensors"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 1000, 10) + bytes(100),
            r"124 B, its 1000 tensors alone need more",
        ),
    ],
)
def test_a_gguf_that_cannot_be_one_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(WrongContent, match=sentence):
        check(tmp_path, put(tmp_path, m__gguf=content), None)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff" * 20, r"claims a header of 18446744073709551615 bytes"),
        (safetensors()[:-1], r"holds 127 B of tensors, its header says 128 B"),
        (safetensors() + b"x", r"holds 129 B of tensors, its header says 128 B"),
        ((5).to_bytes(8, "little") + b"{nope", r"is not JSON"),
        ((2).to_bytes(8, "little") + b"[]", r"is not an object"),
        ((2).to_bytes(8, "little") + b"{}", r"holds no tensors"),
    ],
)
def test_a_safetensors_that_is_cut_or_damaged_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(WrongContent, match=sentence):
        check(tmp_path, put(tmp_path, m__safetensors=content), None)


def with_header(raw: bytes) -> bytes:
    return len(raw).to_bytes(8, "little") + raw


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (b"{" + b" " * JSON_MOST_BYTES + b"}", r"has 17 MB; at most 17 MB are read"),
        (
            b'{"a":[' + b"{}," * (JSON_MOST_MARKS // 2) + b"{}]}",
            r"has \d+ commas, colons and brackets; at most 1000000",
        ),
        (b'{"__metadata__":{"a":[]}}', r"a '__metadata__' that is not an object of strings"),
        (b'{"__metadata__":"a"}', r"a '__metadata__' that is not an object of strings"),
    ],
    ids=["long", "dense", "list in metadata", "text as metadata"],
)
def test_a_header_that_would_fill_the_agents_memory_is_refused(tmp_path: Path, header: bytes, sentence: str) -> None:
    with pytest.raises(WrongContent, match=f"The safetensors header of 'm.safetensors' .*{sentence}"):
        check(tmp_path, put(tmp_path, m__safetensors=with_header(header)), None)


@pytest.mark.parametrize(
    "index",
    [b" " * (JSON_MOST_BYTES + 1), b"[" + b"[]," * (JSON_MOST_MARKS // 2) + b"[]]"],
    ids=["long", "dense"],
)
def test_an_index_that_would_fill_the_agents_memory_is_refused(tmp_path: Path, index: bytes) -> None:
    names = put(tmp_path, m__safetensors=safetensors())
    (tmp_path / INDEX).write_bytes(index)
    with pytest.raises(WrongContent, match=f"'{INDEX}' has .*; at most .* are read"):
        check(tmp_path, [*names, INDEX], None)


def test_tensors_that_overlap_are_refused(tmp_path: Path) -> None:
    header = {name: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for name in "ab"}
    raw = json.dumps(header).encode()
    with pytest.raises(WrongContent, match="a gap or an overlap at byte 4"):
        check(tmp_path, put(tmp_path, m__safetensors=len(raw).to_bytes(8, "little") + raw + bytes(4)), None)


def test_an_index_must_match_the_files_it_names(tmp_path: Path) -> None:
    names = put(tmp_path, one__safetensors=safetensors(("a",)), two__safetensors=safetensors(("b",)))
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    assert check(tmp_path, [*names, INDEX], None) is ModelFormat.SAFETENSORS
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"c": "three.safetensors"}}))
    with pytest.raises(WrongContent, match=r"places tensor 'c' in 'three\.safetensors', which has no such tensor"):
        check(tmp_path, [*names, INDEX], None)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"b": "one.safetensors"}}))
    with pytest.raises(WrongContent, match=r"places tensor 'b' in 'one\.safetensors', which has no such tensor"):
        check(tmp_path, [*names, INDEX], None)
    (tmp_path / INDEX).write_text("[]")
    with pytest.raises(WrongContent, match="has no object 'weight_map'"):
        check(tmp_path, [*names, INDEX], None)
