"""Chooses the next token of every row on the card: temperature, top-k, top-p, min-p, and its log probability.

The draw is an exponential race: the token with the largest probability over noise wins, and the noise is a function
of (seed, position, token id), so a row's token depends on that row alone. No row is sorted. top-k and top-p are
checked after the race: where the winner is outside, it and all that are no likelier leave, and the race is run among
the rest; since the noise stays, the outcome is that of one race among what is kept, however it was found. Ties with
the last kept token stay. One program a row, and no state between calls.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from worker_image.kernels.checks import FLOATS, require_tensor

_BLOCK = 8192
_WARPS = 16
_STAGES = 2
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


def sample(logits: torch.Tensor, parameters: SamplingParameters, tokens: torch.Tensor, logprobs: torch.Tensor) -> None:
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
        parameters.positions, tokens, logprobs, logits.stride(0),
        VOCAB=vocab, BLOCK=_BLOCK, KEY_BITS=_KEY_BITS[logits.dtype], STAGES=_STAGES, num_warps=_WARPS,
    )  # fmt: skip


def noise_reference(seed: int, position: int, vocab: int) -> torch.Tensor:
    """(vocab,) float64: -ln(u) of every token id, u = (bits + 0.5) / 2³², bits a function of (seed, position, id).

    The key is splitmix64 (Steele et al., OOPSLA 2014) of the position, then of that with the seed; a token's bits are
    two rounds of C. Wellons' lowbias32 with the key's halves mixed in.
    """
    mask = (1 << 64) - 1

    def splitmix(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    def mix(x: torch.Tensor) -> torch.Tensor:
        x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
        x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
        return x ^ (x >> 16)

    key = splitmix(splitmix(position & mask) ^ (seed & mask))
    bits = mix(mix(torch.arange(vocab) ^ (key & 0xFFFFFFFF)) ^ (key >> 32))
    return -((bits.double() + 0.5) / 2.0**32).log()


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
    logits: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float, noise: torch.Tensor
) -> int:
    """logits, noise: (vocab,) of one row → its token."""
    if temperature == 0.0:
        return int(logits.argmax())
    kept = kept_reference(logits, temperature, top_k, top_p, min_p)
    scores = logits.double() / temperature - noise.log()
    return int(scores.masked_fill(~kept, -torch.inf).argmax())


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
def _chunk(row: tl.tensor, chunk: tl.tensor, VOCAB: tl.constexpr, BLOCK: tl.constexpr) -> tl.tensor:
    offsets = chunk * BLOCK + tl.arange(0, BLOCK)
    return tl.load(row + offsets, mask=offsets < VOCAB, other=-float("inf")).to(tl.float32)


@triton.jit
def _mix(x: tl.tensor) -> tl.tensor:
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _splitmix(x: tl.tensor) -> tl.tensor:
    x = x + 0x9E3779B97F4A7C15
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def _top(
    row: tl.tensor, VOCAB: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The largest logit, the least id that has it, and the sum of exp(logit - largest)."""
    LOG2E: tl.constexpr = 1.4426950408889634
    # Every lane keeps its own, since a reduction over the program costs a barrier. Finite, so that -inf - -inf is not.
    tops = tl.full([BLOCK], -1e38, tl.float32)
    sums = tl.zeros([BLOCK], tl.float32)
    chunks = tl.zeros([BLOCK], tl.int32)
    for chunk in tl.range(0, tl.cdiv(VOCAB, BLOCK), num_stages=STAGES):
        values = _chunk(row, chunk, VOCAB, BLOCK)
        greater = values > tops
        ratio = tl.exp2((tl.minimum(values, tops) - tl.maximum(values, tops)) * LOG2E)
        sums = tl.where(greater, sums * ratio + 1.0, sums + ratio)
        chunks = tl.where(greater, chunk, chunks)
        tops = tl.where(greater, values, tops)
    largest = tl.max(tops, 0)
    total = tl.sum(sums * tl.exp2((tops - largest) * LOG2E))
    ids = chunks * BLOCK + tl.arange(0, BLOCK)
    return largest, tl.min(tl.where(tops == largest, ids, 0x7FFFFFFF), 0), total


@triton.jit
def _race(
    row: tl.tensor,
    key: tl.tensor,
    floor: tl.tensor,
    rate_log2: tl.tensor,
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    KEY_BITS: tl.constexpr,
    STAGES: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """The winner among tokens whose key is at least `floor`, by probability over exponential noise, and its logit."""
    low = (key & 0xFFFFFFFF).to(tl.uint32)
    high = (key >> 32).to(tl.uint32)
    best = tl.full([BLOCK], -float("inf"), tl.float32)
    logits = tl.full([BLOCK], -float("inf"), tl.float32)
    chunks = tl.zeros([BLOCK], tl.int32)
    for chunk in tl.range(0, tl.cdiv(VOCAB, BLOCK), num_stages=STAGES):
        values = _chunk(row, chunk, VOCAB, BLOCK)
        ids = (chunk * BLOCK + tl.arange(0, BLOCK)).to(tl.uint32)
        bits = _mix(_mix(ids ^ low) ^ high)
        # 1 - u is exact where u is near one, which is where float32 would round u to 1 and the noise to 0. It rounds to
        # 1 where u is near zero: noise without end would let a token lose that nobody runs against.
        rest = (0xFFFFFFFF - bits).to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10
        u = tl.maximum(1.0 - rest, 1.1641532182693481e-10)
        noise = tl.where(rest < 1e-3, rest + 0.5 * rest * rest, -tl.log(u))
        scores = values * rate_log2 - tl.log2(noise)
        scores = tl.where(_keys(values, KEY_BITS) >= floor, scores, -float("inf"))
        better = scores > best
        best = tl.where(better, scores, best)
        logits = tl.where(better, values, logits)
        chunks = tl.where(better, chunk, chunks)
    top = tl.max(best, 0)
    ids = chunks * BLOCK + tl.arange(0, BLOCK)
    token = tl.min(tl.where(best == top, ids, 0x7FFFFFFF), 0)
    return token, tl.max(tl.where(ids == token, logits, -float("inf")), 0)


@triton.jit
def _above(
    row: tl.tensor,
    floor: tl.tensor,
    key: tl.tensor,
    largest: tl.tensor,
    rate_log2: tl.tensor,
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    KEY_BITS: tl.constexpr,
    STAGES: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """How many tokens' keys are greater than `key`, their weight, and the weight of all from `floor` on."""
    counts = tl.zeros([BLOCK], tl.int32)
    heavier = tl.zeros([BLOCK], tl.float32)
    kept = tl.zeros([BLOCK], tl.float32)
    for chunk in tl.range(0, tl.cdiv(VOCAB, BLOCK), num_stages=STAGES):
        values = _chunk(row, chunk, VOCAB, BLOCK)
        keys = _keys(values, KEY_BITS)
        weights = tl.exp2((values - largest) * rate_log2)
        counts += (keys > key).to(tl.int32)
        heavier += tl.where(keys > key, weights, 0.0)
        kept += tl.where(keys >= floor, weights, 0.0)
    return tl.sum(counts), tl.sum(heavier), tl.sum(kept)


@triton.jit
def _kth_key(
    row: tl.tensor,
    k: tl.tensor,
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    KEY_BITS: tl.constexpr,
    STAGES: tl.constexpr,
) -> tl.tensor:
    """The key of the k-th largest logit, two bits at a time from the top."""
    found = tl.full([], -0x80000000 if KEY_BITS == 32 else 0, tl.int64)
    for digit in range(KEY_BITS // 2):
        step = tl.full([], 1, tl.int64) << (KEY_BITS - 2 - digit * 2)
        first = (found + step).to(tl.int32)
        second = (found + 2 * step).to(tl.int32)
        third = (found + 3 * step).to(tl.int32)
        at_first = tl.zeros([BLOCK], tl.int32)
        at_second = tl.zeros([BLOCK], tl.int32)
        at_third = tl.zeros([BLOCK], tl.int32)
        for chunk in tl.range(0, tl.cdiv(VOCAB, BLOCK), num_stages=STAGES):
            values = _chunk(row, chunk, VOCAB, BLOCK)
            keys = _keys(values, KEY_BITS)
            finite = values > -float("inf")
            at_first += (finite & (keys >= first)).to(tl.int32)
            at_second += (finite & (keys >= second)).to(tl.int32)
            at_third += (finite & (keys >= third)).to(tl.int32)
        passed = (tl.sum(at_first) >= k).to(tl.int64) + (tl.sum(at_second) >= k).to(tl.int64)
        found += (passed + (tl.sum(at_third) >= k).to(tl.int64)) * step
    return found.to(tl.int32)


@triton.jit
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
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    KEY_BITS: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    LOG2E: tl.constexpr = 1.4426950408889634
    number = tl.program_id(0)
    row = logits + number.to(tl.int64) * row_stride
    temperature = tl.load(temperatures + number)
    largest, token, total = _top(row, VOCAB, BLOCK, STAGES)
    chosen = largest
    if temperature > 0.0:
        rate_log2 = LOG2E / temperature
        top_k = tl.load(top_ks + number)
        top_p = tl.load(top_ps + number)
        min_p = tl.load(min_ps + number)
        floor = tl.full([], -0x80000000, tl.int32)
        limited = (top_k > 0) & (top_k < VOCAB)
        # With both, top-p's share is of what top-k keeps, so that must be known first.
        if limited & (top_p < 1.0):
            floor = _kth_key(row, top_k, VOCAB, BLOCK, KEY_BITS, STAGES)
        if min_p > 0.0:
            least = largest + tl.log2(min_p) / rate_log2
            floor_p = _least_key(least, KEY_BITS)
        else:
            floor_p = tl.full([], -0x80000000, tl.int32)
        key = _splitmix(tl.load(positions + number).to(tl.uint64))
        key = _splitmix(key ^ tl.load(seeds + number).to(tl.uint64))
        bar = tl.maximum(floor, floor_p)
        searching = tl.full([], 1, tl.int32)
        while searching > 0:
            token, chosen = _race(row, key, bar, rate_log2, VOCAB, BLOCK, KEY_BITS, STAGES)
            searching = tl.full([], 0, tl.int32)
            # The likeliest is always kept. A row of NaN has no winner, and must end too.
            if (limited | (top_p < 1.0)) & (chosen < largest) & (chosen > -float("inf")):
                mine = _keys(chosen, KEY_BITS)
                above, heavier, kept = _above(row, floor, mine, largest, rate_log2, VOCAB, BLOCK, KEY_BITS, STAGES)
                outside = (limited & (above >= top_k)) | ((top_p < 1.0) & (heavier >= top_p * kept))
                # Whoever is no likelier than one outside is outside too; the same race goes on among the rest.
                bar = tl.where(outside, mine + 1, bar)
                searching = outside.to(tl.int32)
    tl.store(tokens + number, token.to(tl.int64))
    tl.store(logprobs + number, chosen - largest - tl.log(total))
