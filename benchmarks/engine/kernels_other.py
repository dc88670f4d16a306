"""Everything that is not attention: norms, SwiGLU, QKV to cache, sampling, and the deterministic matmul."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch

from benchmarks.engine.kernels_attention import KV_HEADS, PAGE, Q_HEADS, random_cache
from benchmarks.engine.kernels_timing import error, normal, seconds
from benchmarks.report import Better, Row
from worker_image.kernels.gemm import matmul, matmul_reference
from worker_image.kernels.norm import add_rms_norm, rms_norm_reference
from worker_image.kernels.qkv import QkvExtras, QkvShape, qkv_reference, qkv_to_cache
from worker_image.kernels.sampling import SamplingParameters, sample
from worker_image.kernels.swiglu import swiglu, swiglu_reference
from worker_image.kernels.triton_ops import EARLY_ROWS
from worker_image.kernels.tuning import Tuning, tile_for

HIDDEN: Final = 4096
FFN: Final = 14336
VOCAB: Final = 128256
TOKENS: Final = (64, 16384)
MATRICES: Final = {"qkv": (6144, HIDDEN), "o": (HIDDEN, HIDDEN), "gate_up": (2 * FFN, HIDDEN), "down": (HIDDEN, FFN)}
ROWS: Final = (1, 64, 512, 8192)
ERROR: Final = ("error against float64", "relative")


def elementwise_rows(tuning: Tuning) -> Iterator[Row]:
    for tokens in TOKENS:
        yield from _norm(tokens, tuning)
        yield from _swiglu(tokens, tuning)
        yield from _qkv(tokens, tuning)


def sampling_rows() -> Iterator[Row]:
    for rows in (1, 256):
        yield from _sampling(rows)


def matmul_rows(tuning: Tuning) -> Iterator[Row]:
    for name, (width, depth) in MATRICES.items():
        for rows in ROWS:
            yield from _matmul(name, rows, width, depth, tuning)


def _norm(tokens: int, tuning: Tuning) -> Iterator[Row]:
    x, residual, weight = normal(tokens, HIDDEN), normal(tokens, HIDDEN), normal(HIDDEN)
    out, total = torch.empty_like(x), x + residual
    add_rms_norm(x, residual, weight, 1e-5, out)
    found = error(out, rms_norm_reference(total, weight, 1e-5))
    time_s = seconds(
        [lambda: add_rms_norm(x, residual, weight, 1e-5, out, early=tuning.early and tokens <= EARLY_ROWS)]
    )

    def eager() -> None:
        residual.add_(x)
        torch.nn.functional.rms_norm(residual, (HIDDEN,), weight, 1e-5)

    yield from _moved(f"residual sum and RMSNorm of {tokens} tokens", 4 * x.nbytes, time_s, seconds([eager]), found)


def _swiglu(tokens: int, tuning: Tuning) -> Iterator[Row]:
    gate_up, out = normal(tokens, 2 * FFN), torch.empty(tokens, FFN, device="cuda", dtype=torch.bfloat16)
    swiglu(gate_up, out)
    found = error(out, swiglu_reference(gate_up))
    time_s = seconds([lambda: swiglu(gate_up, out, early=tuning.early and tokens <= EARLY_ROWS)])

    def eager() -> None:
        gate, up = gate_up.chunk(2, dim=-1)
        torch.nn.functional.silu(gate).mul_(up)

    yield from _moved(f"SwiGLU of {tokens} tokens", 3 * out.nbytes, time_s, seconds([eager]), found)


def _qkv(tokens: int, tuning: Tuning) -> Iterator[Row]:
    shape, extras = QkvShape(Q_HEADS, KV_HEADS, 128), QkvExtras()
    qkv, rope = normal(tokens, shape.n_heads * 128), torch.randn(tokens, 128, device="cuda")
    positions = torch.arange(tokens, device="cuda")
    cache, q = random_cache(tokens // PAGE), torch.empty(tokens, Q_HEADS, 128, device="cuda", dtype=torch.bfloat16)
    qkv_to_cache(shape, extras, qkv, rope, positions, positions, cache, q)
    found = error(q, qkv_reference(shape, extras, qkv, rope, positions)[0])
    run = lambda: qkv_to_cache(  # noqa: E731
        shape, extras, qkv, rope, positions, positions, cache, q, early=tuning.early and tokens <= EARLY_ROWS
    )
    yield from _moved(f"rotation and KV write of {tokens} tokens", 2 * qkv.nbytes, seconds([run]), None, found)


def _moved(workload: str, n_bytes: int, time_s: float, torch_s: float | None, found: float) -> Iterator[Row]:
    """Small problems are told by their time, which is what a launch costs, large ones by the bytes that they need."""
    if time_s < 5e-6:
        peer = torch_s * 1e6 if torch_s else None
        yield Row(workload, "time", "µs", time_s * 1e6, peer, "torch, operator by operator")
    else:
        peer = n_bytes / torch_s / 1e9 if torch_s else None
        yield Row(workload, "bytes moved", "GB/s", n_bytes / time_s / 1e9, peer, "torch, operator by operator",
                  better=Better.HIGHER)  # fmt: skip
    yield Row(workload, *ERROR, found)


def _sampling(rows: int) -> Iterator[Row]:
    logits = [normal(rows, VOCAB) * 3 for _ in range(2)]
    tokens, logprobs = torch.empty(rows, dtype=torch.int64, device="cuda"), torch.empty(rows, device="cuda")
    softmax_s = seconds([lambda x=x: torch.softmax(x, -1).argmax(-1) for x in logits])  # type: ignore[misc]
    for name, values in _SAMPLING.items():
        parameters = _parameters(rows, *values)
        calls = [lambda x=x: sample(x, parameters, tokens, logprobs) for x in logits]  # noqa: B023
        workload = f"sampling of {rows} rows of {VOCAB} logits, {name}"
        yield Row(workload, "time", "µs", seconds(calls) * 1e6, softmax_s * 1e6, "torch softmax and argmax")
    sample(logits[0], _parameters(rows, *_SAMPLING["greedy"]), tokens, logprobs)
    expected = logits[0].double().log_softmax(-1).amax(-1)
    yield Row(f"sampling of {rows} rows", "error of log probabilities", "relative", error(logprobs, expected))


_SAMPLING: Final = {
    "greedy": (0.0, 0, 1.0, 0.0),
    "temperature": (0.6, 0, 1.0, 0.0),
    "top-p 0.9": (0.6, 0, 0.9, 0.0),
    "top-k 50": (0.6, 50, 1.0, 0.0),
    "top-k 50 and top-p 0.9": (0.6, 50, 0.9, 0.0),
}


def _parameters(rows: int, temperature: float, top_k: int, top_p: float, min_p: float) -> SamplingParameters:
    def filled(value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((rows,), value, dtype=dtype, device="cuda")

    return SamplingParameters(
        filled(temperature, torch.float32), filled(top_k, torch.int32), filled(top_p, torch.float32),
        filled(min_p, torch.float32), filled(1, torch.int64), torch.arange(rows, device="cuda"),
    )  # fmt: skip


def _matmul(name: str, rows: int, width: int, depth: int, tuning: Tuning) -> Iterator[Row]:
    copies = 1 + (200 << 20) // (width * depth * 2)
    early = tuning.early and rows <= EARLY_ROWS
    weights = [normal(width, depth) * 0.02 for _ in range(copies)]
    x, out = normal(rows, depth), torch.empty(rows, width, device="cuda", dtype=torch.bfloat16)
    tile, n_sms = tile_for(tuning.matmul, rows), torch.cuda.get_device_properties(0).multi_processor_count
    ours = seconds([lambda w=w: matmul(x, w, out, tile, n_sms, early=early) for w in weights], 12)  # type: ignore[misc]
    cublas = seconds([lambda w=w: torch.mm(x, w.t(), out=out) for w in weights], 12)  # type: ignore[misc]
    matmul(x, weights[0], out, tile, n_sms)
    workload = f"deterministic matmul {name}, {rows} rows"
    yield Row(workload, "time", "µs", ours * 1e6, cublas * 1e6, "cuBLAS, not deterministic over batches")
    if rows <= 512:
        yield Row(workload, *ERROR, error(out, matmul_reference(x, weights[0])))
