"""`python -m worker_image.kernels.precompile MODEL… --device NAME`: compiles a model's kernels where there is no card.

An image built with the result under its TRITON_CACHE_DIR compiles nothing at its first start. Every launcher is called
as the engine calls it, with tensors nobody has written, under a driver that compiles and does not launch; Triton finds
a kernel by its source, its arguments' types and its options, so these are the entries that a card looks for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from worker_image.checkpoint.hf_config import read_hf_config
from worker_image.kernels.fitting import fitted, shared_bytes_of
from worker_image.kernels.prefill_attention import Chunk
from worker_image.kernels.sampling import SamplingParameters, sample
from worker_image.kernels.step_inputs import (
    PARAMETER_WORDS,
    RowTables,
    TokenInputs,
    gather_tables,
    keep_newest,
    sampling_inputs,
    scatter,
    token_inputs,
)
from worker_image.kernels.triton_ops import EARLY_ROWS, KvTensors, StepLimits, Steps, StepTokens, TritonOps
from worker_image.kernels.tuning import Tuning, tuning_for
from worker_image.models.config import ModelConfig
from worker_image.models.ops import AttentionLayer

PAGE = 16
CPU = torch.device("cpu")


class CompilingDriver:
    """What Triton asks of a driver, for a card of one compute capability that is not there."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def launcher_cls(self, source: object, metadata: object) -> Callable[..., None]:
        return lambda *arguments: None

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": sys.maxsize}

    def load_binary(self, *binary: object) -> tuple[int, int, int, int, int]:
        """Module, function, registers, spills, most threads."""
        return 1, 1, 0, 0, sys.maxsize


@dataclass(frozen=True)
class Model:
    """What kernels are compiled for."""

    config: ModelConfig
    dtype: torch.dtype = torch.bfloat16

    def layers(self) -> list[AttentionLayer]:
        """One for each window there is."""
        config = self.config
        gain = self.empty(config.head_dim) if config.qk_norm else None
        bias = self.empty(config.q_rows + 2 * config.kv_rows) if config.qkv_bias else None
        rope = torch.empty(PAGE, config.head_dim)
        heads = (config.n_q_heads, config.n_kv_heads, config.head_dim)
        return [
            AttentionLayer(0, *heads, rope, config.norm_eps, bias, gain, gain, window)
            for window in sorted({config.window(i) for i in range(config.n_layers)}, key=lambda window: window or 0)
        ]

    def empty(self, *size: int) -> torch.Tensor:
        """Memory that is never touched, so that it costs none."""
        return torch.empty(size, dtype=self.dtype)


def compile_kernels(model: Model, tuning: Tuning, *, deterministic: bool = False) -> None:
    """All kernels of one model's steps. The active driver must be a `CompilingDriver`."""
    config, empty = model.config, model.empty
    ops = TritonOps(CPU, tuning, model.dtype, deterministic=deterministic)
    gain = empty(config.hidden)
    for rows in (1, EARLY_ROWS + 1):
        x = empty(rows, config.hidden)
        ops.rms_norm(x, gain, config.norm_eps)
        ops.add_rms_norm(x, x, gain, config.norm_eps)
        ops.swiglu(empty(rows, 2 * config.ffn))
    for rows in _row_counts(tuning):
        for width, depth in _matrices(config):
            if ops.has_own_matmul(rows, width, depth):
                ops.linear(empty(rows, depth), empty(width, depth))
    _compile_attention(model, ops, tuning, deterministic=deterministic)
    for dtype in (model.dtype, torch.float32):
        _compile_sampling(torch.empty((1, config.vocab), dtype=dtype))
    _compile_step_inputs()


def _row_counts(tuning: Tuning) -> Iterator[int]:
    """One for each tile of the table."""
    for tiles in (tuning.decode, tuning.matmul):
        limits = [limit for limit, _ in tiles if limit is not None]
        yield from {1, *limits, *(limit + 1 for limit in limits)}


def _matrices(config: ModelConfig) -> tuple[tuple[int, int], ...]:
    return (
        (config.q_rows + 2 * config.kv_rows, config.hidden),
        (config.hidden, config.q_rows),
        (2 * config.ffn, config.hidden),
        (config.hidden, config.ffn),
        (config.vocab, config.hidden),
    )


def _compile_attention(model: Model, ops: TritonOps, tuning: Tuning, *, deterministic: bool) -> None:
    config, layers = model.config, model.layers()
    cache = KvTensors.allocate(1, 4, config.n_kv_heads, PAGE, config.head_dim, model.dtype, CPU)
    steps = Steps(layers, cache, tuning, StepLimits(1, config.context), deterministic=deterministic)
    for rows in sorted(set(_row_counts(tuning))):
        # Alone, beside a chunk that is short, and beside one that makes the step a long one.
        for chunk in (0, 1, EARLY_ROWS + 1):
            tables, lengths = torch.zeros((rows + 1, 4), dtype=torch.int32), torch.zeros(rows + 1, dtype=torch.int32)
            tokens = _tokens(rows + chunk)
            if chunk:
                step = steps.mixed(tokens, tables, lengths, [Chunk(rows, chunk, chunk)])
            else:
                step = steps.decode(tokens, tables[:rows], lengths[:rows])
            for layer in layers:
                ops.attention(layer, model.empty(rows + chunk, config.q_rows + 2 * config.kv_rows), step)


def _tokens(n: int) -> StepTokens:
    zeros = torch.zeros(n, dtype=torch.int64)
    return StepTokens(zeros, zeros, zeros, None)


def _parameters() -> SamplingParameters:
    floats, longs = torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    return SamplingParameters(floats, torch.zeros(1, dtype=torch.int32), floats, floats, longs, longs)


def _compile_sampling(logits: torch.Tensor) -> None:
    sample(logits, _parameters(), torch.zeros(1, dtype=torch.int64), torch.zeros(1))


def _compile_step_inputs() -> None:
    ints, longs = torch.zeros((3, 4), dtype=torch.int32), torch.zeros(1, dtype=torch.int64)
    tables = RowTables(torch.zeros((1, 4), dtype=torch.int32), ints[0], torch.zeros((1, PARAMETER_WORDS)).int())
    token_inputs(ints[:, :1], tables, PAGE, TokenInputs(longs, longs, longs))
    gather_tables(ints[0, :1], ints[0, :1], tables.blocks, PAGE, torch.zeros((1, 4), dtype=torch.int32))
    sampling_inputs(ints[0, :1], ints[0, :1], tables, _parameters())
    keep_newest(ints[0, :1], longs, ints[0])
    scatter(ints[0], ints[0], ints)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m worker_image.kernels.precompile", description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", help="files like config.json of a Hugging Face checkpoint")
    parser.add_argument("--device", required=True, help="the card as torch names it, for its tiles: 'NVIDIA H200'")
    parser.add_argument("--capability", type=int, default=90, help="its compute capability × 10 (default: 90)")
    parser.add_argument("--deterministic", action="store_true", help="the kernels of deterministic mode instead")
    options = parser.parse_args(arguments)
    driver.set_active(CompilingDriver(options.capability))
    for path in options.models:
        config = read_hf_config(path)
        tuning = fitted(tuning_for(options.device), config, shared_bytes_of(options.capability))
        compile_kernels(Model(config), tuning, deterministic=options.deterministic)
        print(f"compiled the kernels of {path}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
