"""Turns the bytes of a GGUF tensor into float32, vectorised, with torch's threads.

The arithmetic (and its order) is the format's definition, so the result is bit-equal to any other correct reader.
Never touches a file: bytes in, tensor out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch

from worker_image.checkpoint.gguf import F16, F32, Q4_0, Q4_1, Q8_0, GgufFile


def load_tensor(file: GgufFile, name: str, out: torch.Tensor | None = None) -> torch.Tensor:
    """The named tensor as float32, contiguous; written into `out` (same shape) where given.

    Raises KeyError for a name the file lacks.
    """
    info = file.tensors[name]
    result = torch.empty(info.shape) if out is None else out
    # The mapping is read-only and only read; frombuffer would warn about that, so it gets a writable-looking view.
    raw = torch.frombuffer(bytearray(file.data(name)), dtype=torch.uint8)
    _DECODERS[info.encoding.name](raw, result.view(-1))
    return result


def _f32(raw: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(raw.view(torch.float32))


def _f16(raw: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(raw.view(torch.float16))


def _scale(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """The float16 at byte `at` of every block, as a float32 column."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _q8_0(raw: torch.Tensor, out: torch.Tensor) -> None:
    blocks = raw.view(-1, Q8_0.block_bytes)
    torch.mul(blocks[:, 2:].view(torch.int8), _scale(blocks, 0), out=out.view(-1, 32))


def _nibbles(packed: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """16 bytes → 32 values: low nibbles are elements 0–15, high nibbles 16–31."""
    values = out.view(-1, 32)
    values[:, :16].copy_(packed & 0x0F)
    values[:, 16:].copy_(packed >> 4)
    return values


def _q4_0(raw: torch.Tensor, out: torch.Tensor) -> None:
    blocks = raw.view(-1, Q4_0.block_bytes)
    _nibbles(blocks[:, 2:], out).sub_(8.0).mul_(_scale(blocks, 0))


def _q4_1(raw: torch.Tensor, out: torch.Tensor) -> None:
    blocks = raw.view(-1, Q4_1.block_bytes)
    # Multiply, then add, each rounded: a fused multiply-add would differ from other readers in the last bit.
    _nibbles(blocks[:, 4:], out).mul_(_scale(blocks, 0)).add_(_scale(blocks, 2))


_DECODERS: Final[Mapping[str, Callable[[torch.Tensor, torch.Tensor], None]]] = {
    F32.name: _f32,
    F16.name: _f16,
    Q4_0.name: _q4_0,
    Q4_1.name: _q4_1,
    Q8_0.name: _q8_0,
}
