"""Dequantisation of GGUF's K-quants: blocks of 256 elements, whose sub-blocks have small integer scales of their own.

The layouts are those of ggml's `block_q4_K` and `block_q6_K`; the order of the arithmetic is the format's definition.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]

BLOCK_ELEMENTS = 256
Q4_K_BYTES = 144
Q6_K_BYTES = 210


def q4_k(raw: Bytes) -> Floats:
    """(blocks · 144,) → (blocks · 256,): value = d · scale · code − dmin · minimum, 8 sub-blocks of 32 a block.

    Bytes of a block: d and dmin as float16, 12 with the 6-bit scales and minima, 128 of nibbles. Each 32 bytes of
    nibbles hold two sub-blocks, the low halves first.
    """
    blocks = raw.reshape(-1, Q4_K_BYTES)
    scales, minima = _six_bit_pairs(blocks[:, 4:16])
    scales *= _float16(blocks, 0)
    minima *= _float16(blocks, 2)
    packed = blocks[:, 16:].reshape(-1, 4, 32)
    values = np.empty((len(blocks), 8, 32), np.float32)
    np.bitwise_and(packed, 0x0F, out=values[:, 0::2], casting="unsafe")
    np.right_shift(packed, 4, out=values[:, 1::2], casting="unsafe")
    # Multiply, then subtract, each rounded, as every other reader does.
    values *= scales[:, :, None]
    values -= minima[:, :, None]
    return values


def _six_bit_pairs(packed: Bytes) -> tuple[Floats, Floats]:
    """(blocks, 12) → scales and minima, (blocks, 8) each.

    The first four of either are the low six bits of bytes 0–3 and 4–7, whose two high bits, with the nibbles of bytes
    8–11, make the last four.
    """
    first, second, nibbles = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate((first & 0x3F, (nibbles & 0x0F) | ((first >> 2) & 0x30)), axis=1)
    minima = np.concatenate((second & 0x3F, (nibbles >> 4) | ((second >> 2) & 0x30)), axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def q6_k(raw: Bytes) -> Floats:
    """(blocks · 210,) → (blocks · 256,): value = d · scale · (code − 32), 16 sub-blocks of 16 a block.

    Bytes of a block: 128 with the low four bits of the codes, 64 with their high two, 16 scales, d as float16. Either
    half of a block is 128 elements: four runs of 32 share the 64 and 32 bytes of that half.
    """
    blocks = raw.reshape(-1, Q6_K_BYTES)
    low = blocks[:, :128].reshape(-1, 2, 2, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 32)
    codes = np.empty((len(blocks), 2, 4, 32), np.uint8)
    codes[:, :, 0:2] = low & 0x0F
    codes[:, :, 2:4] = low >> 4
    for run in range(4):
        codes[:, :, run] |= ((high >> (2 * run)) & 0x03) << 4
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32) * _float16(blocks, 208)
    values = codes.reshape(-1, 16, 16).astype(np.float32)
    values -= np.float32(32)
    values *= scales[:, :, None]
    return values


def _float16(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of every block, as a float32 column."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)
