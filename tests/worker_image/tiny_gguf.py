"""Writes small GGUF checkpoints for tests: a random Llama with a byte-level tokenizer, whole or broken.

A writer of our own rather than the `gguf` package's, so that tests can also write what no proper writer would.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker_image.text.detokenizer import byte_alphabet

SPECIAL_TOKENS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE: Final = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ENCODING_NUMBERS: Final = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14, "BF16": 30
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Sizes of the random model; small enough that a step takes a millisecond."""

    layers: int = 2
    hidden: int = 64
    ffn: int = 96
    q_heads: int = 4
    kv_heads: int = 2
    context: int = 256


@dataclass
class Contents:
    """What goes into the file. Tests change an entry to break it."""

    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    encodings: dict[str, int] = field(default_factory=dict)
    """Tensor name → type number, where it is not the file's."""


def tiny_llama(shape: Shape | None = None, *, seed: int = 0) -> Contents:
    shape = shape or Shape()
    vocabulary = [*SPECIAL_TOKENS, *byte_alphabet(), "th", "the"]
    rng = np.random.default_rng(seed)
    contents = Contents(_metadata(shape, vocabulary))

    def matrix(name: str, *size: int) -> None:
        contents.tensors[name] = (rng.standard_normal(size) * 0.2).astype(np.float32)

    kv = shape.hidden // shape.q_heads * shape.kv_heads
    matrix("token_embd.weight", len(vocabulary), shape.hidden)
    for i in range(shape.layers):
        for name, rows, columns in (
            ("attn_q", shape.hidden, shape.hidden),
            ("attn_k", kv, shape.hidden),
            ("attn_v", kv, shape.hidden),
            ("attn_output", shape.hidden, shape.hidden),
            ("ffn_gate", shape.ffn, shape.hidden),
            ("ffn_up", shape.ffn, shape.hidden),
            ("ffn_down", shape.hidden, shape.ffn),
        ):
            matrix(f"blk.{i}.{name}.weight", rows, columns)
        contents.tensors[f"blk.{i}.attn_norm.weight"] = np.ones(shape.hidden, np.float32)
        contents.tensors[f"blk.{i}.ffn_norm.weight"] = np.ones(shape.hidden, np.float32)
    contents.tensors["output_norm.weight"] = np.ones(shape.hidden, np.float32)
    return contents


def _metadata(shape: Shape, vocabulary: list[str]) -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "llama.block_count": shape.layers,
        "llama.context_length": shape.context,
        "llama.embedding_length": shape.hidden,
        "llama.feed_forward_length": shape.ffn,
        "llama.attention.head_count": shape.q_heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL_TOKENS) + [1] * (len(vocabulary) - len(SPECIAL_TOKENS)),
        "tokenizer.ggml.merges": ["t h", "th e"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    }


def write_gguf(path: Path, contents: Contents, encoding: str = "F32") -> Path:
    """Matrices in `encoding`, vectors always F32."""
    header = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(contents.tensors), len(contents.metadata)))
    for key, value in contents.metadata.items():
        header += _string(key) + _value(value)
    data = bytearray()
    for name, tensor in contents.tensors.items():
        own = encoding if tensor.ndim == 2 else "F32"
        number = contents.encodings.get(name, ENCODING_NUMBERS[own])
        dims = tensor.shape[::-1]
        header += _string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, number, len(data))
        data += _encode(tensor, own)
        data += bytes(-len(data) % 32)
    path.write_bytes(header + bytes(-len(header) % 32) + data)
    return path


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<Ii", 5, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _string(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_string(item) for item in value)
        case [float(), *_]:
            return struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
        case [*_]:
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    raise TypeError(f"no GGUF type for {type(value)}")


def _encode(tensor: npt.NDArray[np.float32], encoding: str) -> bytes:
    if encoding == "F32":
        return tensor.tobytes()
    if encoding == "F16":
        return tensor.astype(np.float16).tobytes()
    if encoding == "BF16":
        return (tensor.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    if encoding in _K_BLOCKS:
        return _random_k_blocks(tensor.size // 256, encoding)
    blocks = tensor.reshape(-1, 32)
    return bytes(_BLOCK_ENCODERS[encoding](blocks))


def _q8_0(blocks: npt.NDArray[np.float32]) -> bytes:
    scale = (np.abs(blocks).max(1, keepdims=True) / 127).astype(np.float16)
    codes = np.rint(blocks / np.maximum(scale.astype(np.float32), 1e-9)).astype(np.int8)
    return np.concatenate([scale.view(np.uint8), codes.view(np.uint8)], axis=1).tobytes()


def _packed(codes: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    values = np.clip(np.rint(codes), 0, 15).astype(np.uint8)
    return (values[:, :16] | (values[:, 16:] << 4)).astype(np.uint8)


def _q4_0(blocks: npt.NDArray[np.float32]) -> bytes:
    scale = (np.abs(blocks).max(1, keepdims=True) / 8).astype(np.float16)
    codes = blocks / np.maximum(scale.astype(np.float32), 1e-9) + 8
    return np.concatenate([scale.view(np.uint8), _packed(codes)], axis=1).tobytes()


def _q4_1(blocks: npt.NDArray[np.float32]) -> bytes:
    low = blocks.min(1, keepdims=True)
    scale = ((blocks.max(1, keepdims=True) - low) / 15).astype(np.float16)
    minimum = low.astype(np.float16)
    codes = (blocks - minimum.astype(np.float32)) / np.maximum(scale.astype(np.float32), 1e-9)
    return np.concatenate([scale.view(np.uint8), minimum.view(np.uint8), _packed(codes)], axis=1).tobytes()


_K_BLOCKS: Final = {"Q4_K": (144, (0, 2)), "Q6_K": (210, (208,))}
"""Bytes of a block, and where its float16 numbers are."""


def _random_k_blocks(count: int, encoding: str) -> bytes:
    """Any bits are valid codes and scales; what is tested is how they are read, not how they are chosen."""
    size, numbers_at = _K_BLOCKS[encoding]
    rng = np.random.default_rng(7)
    blocks = rng.integers(0, 256, (count, size), np.uint8)
    for at in numbers_at:
        blocks[:, at : at + 2] = rng.standard_normal((count, 1)).astype(np.float16).view(np.uint8)
    return blocks.tobytes()


_BLOCK_ENCODERS: Mapping[str, Any] = {"Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1}
