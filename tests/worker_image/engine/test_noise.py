"""Counted noise: its integers are a fixed format, its distribution is the exponential one."""

from __future__ import annotations

import numpy as np
import torch

from worker_image.engine.noise import bits, exponential, key_of

IDS = np.arange(4, dtype=np.uint32)


def test_keys_are_splitmix64s() -> None:
    """The generator's published first outputs for the states 0 and 1234567."""
    assert key_of(0, 0) == key_of(1 << 64, 0)
    # splitmix64(0) is the index's half; with it as the seed, the sum of both is 0.
    assert key_of(0xE220A8397B1DCDAF, 0) == 0xE220A8397B1DCDAF
    assert key_of(0xE220A8397B1DCDAF ^ 1234567, 0) == 6457827717110365317


def test_the_bits_never_change() -> None:
    """Written down once, so that a request can go on under another version."""
    assert bits(11, 5, IDS).tolist() == BITS_OF_11_5


BITS_OF_11_5 = [2372639168, 3623968961, 4242731994, 1771238914]


def test_seed_index_and_candidate_each_matter() -> None:
    base = bits(1, 2, IDS).tolist()
    assert len(set(base)) == 4
    assert not set(base) & set(bits(2, 2, IDS).tolist())
    assert not set(base) & set(bits(1, 3, IDS).tolist())


def test_noise_is_exponential() -> None:
    noise = exponential(3, 9, torch.arange(200_000)).double()
    assert torch.isfinite(noise).all()
    assert (noise > 0).all()
    assert abs(noise.mean() - 1) < 0.01
    assert abs(noise.var() - 1) < 0.03
    quantiles = torch.quantile(noise, torch.tensor([0.1, 0.5, 0.9, 0.99], dtype=torch.float64))
    expected = -torch.log(1 - torch.tensor([0.1, 0.5, 0.9, 0.99], dtype=torch.float64))
    assert torch.allclose(quantiles, expected, rtol=0.03)


def test_noise_of_neighbouring_indices_is_independent() -> None:
    """Across 20,000 indices of one seed: no correlation between an index and the next, nor between candidates."""
    rows = np.stack([bits(7, i, IDS[:2]) for i in range(20_000)]).astype(np.float64)
    assert abs(np.corrcoef(rows[:-1, 0], rows[1:, 0])[0, 1]) < 0.03
    assert abs(np.corrcoef(rows[:, 0], rows[:, 1])[0, 1]) < 0.03
