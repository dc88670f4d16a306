"""Chooses the next token of every row on the card: temperature, top-k, top-p, min-p, and its log probability.

No row is sorted. What top-k and top-p keep are the logits at or above a threshold, which is found by narrowing the
bits of the number, a few at a time; ties with the threshold stay. The draw inverts the cumulative sum of what was
kept, in the order of token ids, at one uniform number that is a function of (seed, position) only: a row's token
depends on that row alone. One program a row, and no state between calls.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from worker_image.kernels.checks import FLOATS, require_tensor

_BLOCK = 8192
_KEY_BITS = {torch.bfloat16: 16, torch.float16: 20, torch.float32: 32}
"""How many leading bits of its float32 tell two numbers of a type apart."""


@dataclass(frozen=True)
class SamplingParameters:
    """One entry a row, all on the logits' device. A temperature of 0 is greedy: the least id of the largest logit."""

    temperature: torch.Tensor
    """(rows,) float32."""
    top_k: torch.Tensor
    """(rows,) int32; 0 keeps all."""
    top_p: torch.Tensor
    """(rows,) float32; 1 keeps all. Of what top-k kept, the least set of the likeliest with this much mass."""
    min_p: torch.Tensor
    """(rows,) float32: least probability, as a share of the likeliest token's; 0 keeps all."""
    seeds: torch.Tensor
    """(rows,) int64."""
    positions: torch.Tensor
    """(rows,) int64 below 2**32: of the token that is drawn."""


def sample(
    logits: torch.Tensor, parameters: SamplingParameters, tokens: torch.Tensor, logprobs: torch.Tensor
) -> None:
    """logits: (rows, vocab), rows dense, each with a finite entry; -inf forbids a token. Overwrites tokens: (rows,)
    int64 and logprobs: (rows,) float32, the log of the softmax of the logits as given. Raises KernelError.
    """
    rows, vocab = logits.shape
    require_tensor("logits", logits, (None, None), FLOATS, contiguous=False)
    for name in ("temperature", "top_p", "min_p"):
        require_tensor(name, getattr(parameters, name), (rows,), (torch.float32,))
    require_tensor("top_k", parameters.top_k, (rows,), (torch.int32,))
    require_tensor("seeds", parameters.seeds, (rows,), (torch.int64,))
    require_tensor("positions", parameters.positions, (rows,), (torch.int64,))
    require_tensor("tokens", tokens, (rows,), (torch.int64,))
    require_tensor("logprobs", logprobs, (rows,), (torch.float32,))
    if rows == 0:
        return
    _sample_kernel[(rows,)](
        logits, parameters.temperature, parameters.top_k, parameters.top_p, parameters.min_p, parameters.seeds,
        parameters.positions, tokens, logprobs, logits.stride(0), vocab, triton.cdiv(vocab, _BLOCK),
        BLOCK=_BLOCK, CHUNKS_PAD=triton.next_power_of_2(triton.cdiv(vocab, _BLOCK)),
        KEY_BITS=_KEY_BITS[logits.dtype], num_warps=16,
    )  # fmt: skip


def uniform_reference(seed: int, position: int) -> float:
    """In [0, 1), 31 bits: the first word of Philox-4x32-10 (Salmon et al., SC 2011) with `seed` as key."""
    key, words = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], [position & 0xFFFFFFFF, 0, 0, 0]
    for _ in range(10):
        a, b = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        words = [b >> 32 ^ words[1] ^ key[0], b & 0xFFFFFFFF, a >> 32 ^ words[3] ^ key[1], a & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    word = words[0]
    return (word if word < 1 << 31 else (1 << 32) - 1 - word) / (1 << 31)


def kept_reference(logits: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float) -> torch.Tensor:
    """(vocab,) bool: which tokens of one row may be drawn, by sorting, in float64."""
    kept = torch.ones_like(logits, dtype=torch.bool)
    if 0 < top_k < logits.numel():
        kept = logits >= logits.topk(top_k).values[-1]
    scaled = (logits.double() / temperature).masked_fill(~kept, -torch.inf)
    probabilities = scaled.softmax(-1)
    if top_p < 1.0:
        ordered, ids = probabilities.sort(descending=True, stable=True)
        before = ordered.cumsum(0) - ordered
        # The likeliest token stays, whatever top_p is.
        least = logits[ids[: max(1, int((before < top_p).sum()))]].min()
        kept = kept & (logits >= least)
    return kept & (probabilities >= min_p * probabilities.max())


def sample_reference(
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float, uniform: float
) -> int:
    """logits: (vocab,) of one row → its token."""
    if temperature == 0.0:
        return int(logits.argmax())
    kept = kept_reference(logits, temperature, top_k, top_p, min_p)
    mass = (logits.double() / temperature).masked_fill(~kept, -torch.inf).softmax(-1).cumsum(0)
    return int((mass <= uniform * mass[-1]).sum())


@triton.jit
def _keys(values: tl.tensor, KEY_BITS: tl.constexpr) -> tl.tensor:
    """float32 → int32 that order as the numbers do, KEY_BITS wide, never negative for less than 32 bits."""
    bits = values.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    if KEY_BITS < 32:
        ordered = (ordered >> (32 - KEY_BITS)) + (1 << (KEY_BITS - 1))
    return ordered


@triton.jit
def _least_key(least: tl.tensor, KEY_BITS: tl.constexpr) -> tl.tensor:
    """The key of the least number of the logits' type that is not below `least`."""
    # The dropped bits of a narrow number are zeros, which order as ones once it is negative.
    up = tl.where(least >= 0.0, (1 << (32 - KEY_BITS)) - 1, 0).to(tl.int64)
    key = (_keys(least, 32).to(tl.int64) + up) >> (32 - KEY_BITS)
    if KEY_BITS < 32:
        key += 1 << (KEY_BITS - 1)
    return key.to(tl.int32)


@triton.jit
def _chunk(row: tl.tensor, chunk: tl.tensor, vocab: tl.tensor, BLOCK: tl.constexpr) -> tl.tensor:
    offsets = chunk * BLOCK + tl.arange(0, BLOCK)
    return tl.load(row + offsets, mask=offsets < vocab, other=-float("inf")).to(tl.float32)


@triton.jit
def _threshold(
    row: tl.tensor,
    vocab: tl.tensor,
    n_chunks: tl.tensor,
    goal: tl.tensor,
    floor: tl.tensor,
    largest: tl.tensor,
    rate_log2: tl.tensor,
    MASS: tl.constexpr,
    BLOCK: tl.constexpr,
    KEY_BITS: tl.constexpr,
) -> tl.tensor:
    """The largest key such that the tokens at or above it, and above `floor`, count or weigh at least `goal`."""
    found = tl.full([], -0x80000000 if KEY_BITS == 32 else 0, tl.int64)
    for digit in range(KEY_BITS // 2):
        step = tl.full([], 1, tl.int64) << (KEY_BITS - 2 - digit * 2)
        first = (found + step).to(tl.int32)
        second = (found + 2 * step).to(tl.int32)
        third = (found + 3 * step).to(tl.int32)
        # Kept per lane and summed once, since a sum over the program costs a barrier.
        at_first = tl.zeros([BLOCK], tl.float32)
        at_second = tl.zeros([BLOCK], tl.float32)
        at_third = tl.zeros([BLOCK], tl.float32)
        for chunk in range(n_chunks):
            values = _chunk(row, chunk, vocab, BLOCK)
            keys = _keys(values, KEY_BITS)
            if MASS:
                weights = tl.exp2((values - largest) * rate_log2)
            else:
                weights = tl.where(values == -float("inf"), 0.0, 1.0)
            weights = tl.where(keys >= floor, weights, 0.0)
            at_first += tl.where(keys >= first, weights, 0.0)
            at_second += tl.where(keys >= second, weights, 0.0)
            at_third += tl.where(keys >= third, weights, 0.0)
        passed = (tl.sum(at_first) >= goal).to(tl.int64) + (tl.sum(at_second) >= goal).to(tl.int64)
        found += (passed + (tl.sum(at_third) >= goal).to(tl.int64)) * step
    # The likeliest token stays, whatever the goal.
    return tl.minimum(tl.maximum(found.to(tl.int32), floor), _keys(largest, KEY_BITS))


@triton.jit
def _draw(
    row: tl.tensor,
    vocab: tl.tensor,
    n_chunks: tl.tensor,
    uniform: tl.tensor,
    floor: tl.tensor,
    largest: tl.tensor,
    rate_log2: tl.tensor,
    BLOCK: tl.constexpr,
    CHUNKS_PAD: tl.constexpr,
    KEY_BITS: tl.constexpr,
) -> tl.tensor:
    """The first token at which the running sum of the kept weights passes `uniform` of all."""
    numbers = tl.arange(0, CHUNKS_PAD)
    sums = tl.zeros([CHUNKS_PAD], tl.float32)
    for chunk in range(n_chunks):
        values = _chunk(row, chunk, vocab, BLOCK)
        weights = tl.where(_keys(values, KEY_BITS) >= floor, tl.exp2((values - largest) * rate_log2), 0.0)
        sums += tl.where(numbers == chunk, tl.sum(weights), 0.0)
    goal = uniform * tl.sum(sums)
    # Rounding may leave the goal at the very end: the last chunk with any weight takes it.
    last = tl.max(tl.where(sums > 0.0, numbers, 0))
    chosen = tl.minimum(tl.sum((tl.cumsum(sums, 0) <= goal).to(tl.int32)), last)
    rest = goal - tl.sum(tl.where(numbers < chosen, sums, 0.0))
    values = _chunk(row, chosen, vocab, BLOCK)
    weights = tl.where(_keys(values, KEY_BITS) >= floor, tl.exp2((values - largest) * rate_log2), 0.0)
    places = tl.arange(0, BLOCK)
    running = tl.cumsum(weights, 0)
    last = tl.max(tl.where(weights > 0.0, places, 0))
    first = tl.min(tl.where((running > rest) & (weights > 0.0), places, BLOCK))
    return chosen * BLOCK + tl.minimum(first, last)


@triton.jit(do_not_specialize=["vocab", "n_chunks"])
def _sample_kernel(
    logits: tl.tensor,
    temperatures: tl.tensor,
    top_ks: tl.tensor,
    top_ps: tl.tensor,
    min_ps: tl.tensor,
    seeds: tl.tensor,
    positions: tl.tensor,
    tokens: tl.tensor,
    logprobs: tl.tensor,
    row_stride: tl.tensor,
    vocab: tl.tensor,
    n_chunks: tl.tensor,
    BLOCK: tl.constexpr,
    CHUNKS_PAD: tl.constexpr,
    KEY_BITS: tl.constexpr,
) -> None:
    LOG2E: tl.constexpr = 1.4426950408889634
    number = tl.program_id(0)
    row = logits + number.to(tl.int64) * row_stride
    temperature = tl.load(temperatures + number)
    largest = tl.full([], -float("inf"), tl.float32)
    likeliest = tl.full([], 0, tl.int32)
    total = tl.full([], 0.0, tl.float32)
    for chunk in range(n_chunks):
        values = _chunk(row, chunk, vocab, BLOCK)
        top, place = tl.max(values, 0, return_indices=True)
        likeliest = tl.where(top > largest, chunk * BLOCK + place, likeliest)
        new = tl.maximum(largest, top)
        safe = tl.where(new == -float("inf"), 0.0, new)
        total = total * tl.exp2((largest - safe) * LOG2E) + tl.sum(tl.exp2((values - safe) * LOG2E))
        largest = new
    token = likeliest.to(tl.int64)
    if temperature > 0.0:
        rate_log2 = LOG2E / temperature
        top_k = tl.load(top_ks + number)
        top_p = tl.load(top_ps + number)
        min_p = tl.load(min_ps + number)
        floor = tl.full([], -0x80000000, tl.int32)
        if (top_k > 0) & (top_k < vocab):
            goal = top_k.to(tl.float32)
            floor = _threshold(row, vocab, n_chunks, goal, floor, largest, rate_log2, False, BLOCK, KEY_BITS)
        if top_p < 1.0:
            mass = tl.full([], 0.0, tl.float32)
            for chunk in range(n_chunks):
                values = _chunk(row, chunk, vocab, BLOCK)
                weights = tl.exp2((values - largest) * rate_log2)
                mass += tl.sum(tl.where(_keys(values, KEY_BITS) >= floor, weights, 0.0))
            floor = _threshold(row, vocab, n_chunks, tl.minimum(top_p * mass, mass), floor, largest, rate_log2, True, BLOCK, KEY_BITS)
        if min_p > 0.0:
            least = largest + tl.log2(min_p) / rate_log2
            floor = tl.maximum(floor, _least_key(least, KEY_BITS))
        uniform = tl.rand(tl.load(seeds + number), tl.load(positions + number).to(tl.int32))
        token = _draw(row, vocab, n_chunks, uniform, floor, largest, rate_log2,
                      BLOCK, CHUNKS_PAD, KEY_BITS).to(tl.int64)  # fmt: skip
    tl.store(tokens + number, token)
    chosen = tl.load(row + token).to(tl.float32)
    tl.store(logprobs + number, chosen - largest - tl.log(total))
