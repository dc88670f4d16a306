from __future__ import annotations

import pytest
import torch

from tests.worker_image.kernels.gen import randn
from worker_image.kernels.checks import KernelError
from worker_image.kernels.gemm import matmul, matmul_reference
from worker_image.kernels.tuning import MatmulTile

TILES = [MatmulTile(16, 32, 32, 4, 2), MatmulTile(32, 64, 16, 4, 2, group_m=2, out_parts=2),
         MatmulTile(16, 64, 32, 4, 2, swap=True)]  # fmt: skip


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("rows", "width", "depth"), [(1, 96, 64), (37, 72, 104), (70, 40, 16), (37, 33, 64)])
def test_the_product_matches_float64_at_odd_sizes(tile: MatmulTile, rows: int, width: int, depth: int) -> None:
    x, weight = randn(rows, depth), randn(width, depth, seed=1)
    out = torch.full((rows, width), float("nan"))
    matmul(x, weight, out, tile, 3)
    torch.testing.assert_close(out.double(), matmul_reference(x, weight), rtol=1e-5, atol=1e-4)


def test_rows_that_are_no_multiple_of_16_bytes_are_refused() -> None:
    x, weight = randn(1, 6), randn(8, 6)
    with pytest.raises(KernelError, match="the weight is 8 × 6; its rows must be multiples of 16 bytes"):
        matmul(x, weight, randn(1, 8), TILES[0], 3)
