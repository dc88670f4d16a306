"""The randomness of sampling: a pure function of (seed, index of the token, candidate), so that nothing is drawn.

A token then depends on nothing that shares its batch, and a request that goes on elsewhere goes on as it would have.
Every device computes the same integers; only the logarithm may differ in its last bit.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

MASK_64: Final = (1 << 64) - 1
Words: TypeAlias = npt.NDArray[np.uint32]


def key_of(seed: int, index: int) -> int:
    """64 bits for one token: splitmix64 (Steele et al., OOPSLA 2014) of the index, then of that with the seed."""
    return _splitmix(_splitmix(index & MASK_64) ^ (seed & MASK_64))


def _splitmix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK_64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK_64
    return x ^ (x >> 31)


def bits(seed: int, index: int, candidates: Words) -> Words:
    """Uniform 32 bits for each candidate token: mix(mix(token ^ low half of the key) ^ high half)."""
    key = key_of(seed, index)
    return _mix(_mix(candidates ^ np.uint32(key & 0xFFFFFFFF)) ^ np.uint32(key >> 32))


def _mix(x: Words) -> Words:
    """lowbias32 of C. Wellons' hash-prospector: every output bit depends on every input bit, bias 0.17."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def exponential(seed: int, index: int, candidates: torch.Tensor) -> torch.Tensor:
    """-ln(u), u = (bits + 0.5) / 2³²: the token with the largest probability / noise is a draw from the distribution.

    candidates: token ids (n,) int64 on the CPU → (n,) float32.
    """
    u = (bits(seed, index, candidates.numpy().astype(np.uint32)).astype(np.float64) + 0.5) / 2.0**32
    return torch.from_numpy(-np.log(u).astype(np.float32))
