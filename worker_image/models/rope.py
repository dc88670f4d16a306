"""The rotary embedding's table, for every scaling there is: computed once at load, in float32 on the CPU.

Frequencies follow `transformers`' own rounding (float32 throughout), so that a float32 model gives its logits.
"""

from __future__ import annotations

import math

import torch

from worker_image.models.config import (
    DynamicScaling,
    FrequencyFactors,
    LinearScaling,
    Llama3Scaling,
    RopeConfig,
    YarnScaling,
)


def rope_table(rope: RopeConfig, head_dim: int, n_positions: int) -> torch.Tensor:
    """(n_positions, head_dim) float32: cosines of the head_dim/2 pairs, then their sines (arXiv:2104.09864, 3.4.2)."""
    positions = torch.arange(n_positions, dtype=torch.float32)
    if isinstance(rope.scaling, DynamicScaling):
        angles = positions[:, None] * _dynamic_frequencies(rope.theta, rope.scaling, head_dim, n_positions)
    else:
        angles = torch.outer(positions, frequencies(rope, head_dim))
    table = torch.cat((angles.cos(), angles.sin()), dim=1)
    return table.mul_(_attention_factor(rope.scaling)) if isinstance(rope.scaling, YarnScaling) else table


def frequencies(rope: RopeConfig, head_dim: int) -> torch.Tensor:
    """(head_dim/2,) radians a position, for every scaling whose frequencies do not depend on the position."""
    plain = _plain(rope.theta, head_dim)
    match rope.scaling:
        case LinearScaling(factor):
            return plain / factor
        case FrequencyFactors(factors):
            return plain / torch.tensor(factors)
        case Llama3Scaling():
            return _llama3(plain, rope.scaling)
        case YarnScaling():
            return _yarn(plain, rope.theta, rope.scaling, head_dim)
    return plain


def _plain(theta: float, head_dim: int) -> torch.Tensor:
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    return 1.0 / (theta**exponents)


def _dynamic_frequencies(theta: float, scaling: DynamicScaling, head_dim: int, n_positions: int) -> torch.Tensor:
    """(n_positions, head_dim/2): each position has the base of a sequence that ends there.

    That is what a sequence growing token by token gets from `transformers`, and it does not depend on how a prompt
    is cut into chunks.
    """
    lengths = torch.arange(1, n_positions + 1, dtype=torch.float64).clamp_(min=scaling.trained_context)
    growth = scaling.factor * lengths / scaling.trained_context - (scaling.factor - 1)
    bases = theta * growth ** (head_dim / (head_dim - 2))
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    return (1.0 / bases[:, None] ** exponents).float()


def _llama3(plain: torch.Tensor, scaling: Llama3Scaling) -> torch.Tensor:
    wavelengths = 2 * math.pi / plain
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = (scaling.trained_context / wavelengths - low) / (high - low)
    blended = (1 - smooth) * (plain / scaling.factor) + smooth * plain
    scaled = torch.where(wavelengths > scaling.trained_context / low, plain / scaling.factor, blended)
    return torch.where(wavelengths < scaling.trained_context / high, plain, scaled)


def _yarn(plain: torch.Tensor, theta: float, scaling: YarnScaling, head_dim: int) -> torch.Tensor:
    def dimension(rotations: float) -> float:
        """Where a pair turns that often within the trained context."""
        return head_dim * math.log(scaling.trained_context / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    # Equal borders would divide by zero.
    width = high - low or 0.001
    interpolated = ((torch.arange(head_dim // 2, dtype=torch.float32) - low) / width).clamp_(0, 1)
    return plain / scaling.factor * interpolated + plain * (1 - interpolated)


def _attention_factor(scaling: YarnScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return _mscale(scaling.factor, scaling.mscale) / _mscale(scaling.factor, scaling.mscale_all_dim)
    return _mscale(scaling.factor, 1.0)


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
