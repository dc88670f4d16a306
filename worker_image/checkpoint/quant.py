"""Turns the bytes of a GGUF tensor into float32 with numpy.

The arithmetic (and its order) is the format's definition, so the result is bit-equal to any other correct reader.
No torch here: a file is decoded while the interpreter is still importing it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from worker_image.checkpoint.gguf import BF16, F16, F32, Q4_0, Q4_1, Q4_K, Q6_K, Q8_0, GgufFile
from worker_image.checkpoint.k_quants import q4_k, q6_k

Floats: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]


def decode_tensor(file: GgufFile, name: str) -> Floats:
    """The named tensor as float32, contiguous, a fresh array. Raises KeyError for a name the file lacks."""
    info = file.tensors[name]
    raw = np.frombuffer(file.data(name), np.uint8)
    return _DECODERS[info.encoding.name](raw).reshape(info.shape)


def _f32(raw: Bytes) -> Floats:
    return raw.view(np.float32).copy()


def _f16(raw: Bytes) -> Floats:
    return raw.view(np.float16).astype(np.float32)


def _bf16(raw: Bytes) -> Floats:
    return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _scale(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of every block, as a float32 column."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _q8_0(raw: Bytes) -> Floats:
    blocks = raw.reshape(-1, Q8_0.block_bytes)
    values = blocks[:, 2:].view(np.int8).astype(np.float32)
    values *= _scale(blocks, 0)
    return values


def _nibbles(packed: Bytes) -> Floats:
    """16 bytes → 32 values: low nibbles are elements 0 to 15, high nibbles 16 to 31."""
    values = np.empty((len(packed), 32), np.float32)
    np.bitwise_and(packed, 0x0F, out=values[:, :16], casting="unsafe")
    np.right_shift(packed, 4, out=values[:, 16:], casting="unsafe")
    return values


def _q4_0(raw: Bytes) -> Floats:
    blocks = raw.reshape(-1, Q4_0.block_bytes)
    values = _nibbles(blocks[:, 2:])
    values -= np.float32(8)
    values *= _scale(blocks, 0)
    return values


def _q4_1(raw: Bytes) -> Floats:
    blocks = raw.reshape(-1, Q4_1.block_bytes)
    values = _nibbles(blocks[:, 4:])
    # Multiply, then add, each rounded: a fused multiply-add would differ from other readers in the last bit.
    values *= _scale(blocks, 0)
    values += _scale(blocks, 2)
    return values


_DECODERS: Final[Mapping[str, Callable[[Bytes], Floats]]] = {
    F32.name: _f32,
    F16.name: _f16,
    Q4_0.name: _q4_0,
    Q4_1.name: _q4_1,
    Q8_0.name: _q8_0,
    Q4_K.name: q4_k,
    Q6_K.name: q6_k,
    BF16.name: _bf16,
}
