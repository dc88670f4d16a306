"""Rows and page from a folder of results: each number beside the peer's on the same kind of card and the goal.

Measures nothing; a stage that was not run leaves no row, unless it has a goal.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.engine.anchors import (
    ANCHORS,
    COLD_START_GOAL_S,
    DETERMINISTIC_KEEPS,
    DETERMINISTIC_TPOT_RATIO,
    KV_WASTE_GOAL,
    PEER,
    TRANSFORMERS,
)
from benchmarks.engine.results import Results
from benchmarks.report import Better, Report, Row, Words

TITLES: Final = {
    "w1": "W1: 0.6B shape, 256 sequences at once, temperature 0.6",
    "w2": "W2: 8B shape, 1,000 conversations at once",
    "w3_batch1": "W3: 8B shape, prompt 1,024, output 256, batch 1",
    "w3_batch8": "W3: batch 8",
    "w3_batch32": "W3: batch 32",
    "w3_batch128": "W3: batch 128",
    "w4_rate8": "W4: 8B shape, Poisson arrivals, 8 requests/s",
    "w4_rate16": "W4: 16 requests/s",
    "w4_rate24": "W4: 24 requests/s",
    "w5": "W5: 8B shape, 512 requests with a shared prefix",
}
THROUGHPUT: Final = ("output_tokens_per_s", "output tokens", "tok/s", Better.HIGHER)
TTFT: Final = ("ttft_ms", "TTFT, median", "ms", Better.LOWER)
TTFT_P99: Final = ("ttft_p99_ms", "TTFT, p99", "ms", Better.LOWER)
TPOT: Final = ("tpot_ms", "TPOT, median", "ms", Better.LOWER)
TPOT_P99: Final = ("tpot_p99_ms", "TPOT, p99", "ms", Better.LOWER)
METRICS: Final = {
    "w1": (THROUGHPUT,),
    "w2": (THROUGHPUT,),
    "w3_batch1": (TTFT, TPOT),
    "w3_batch8": (THROUGHPUT, TTFT, TPOT),
    "w3_batch32": (THROUGHPUT, TTFT, TPOT),
    "w3_batch128": (THROUGHPUT, TTFT, TPOT),
    "w4_rate8": (TTFT, TTFT_P99, TPOT, TPOT_P99, THROUGHPUT),
    "w4_rate16": (TTFT, TTFT_P99, TPOT, TPOT_P99, THROUGHPUT),
    "w4_rate24": (TTFT, TTFT_P99, TPOT, TPOT_P99, THROUGHPUT),
    "w5": (THROUGHPUT,),
}


def rows(results: Results) -> list[Row]:
    """All rows; `results` must hold `ceilings`, which names the card."""
    ceilings = results.load("ceilings")
    card = str(ceilings["card"])
    return [
        *_ceilings(ceilings, card),
        *(row for name in METRICS for row in _workload(results, name, card)),
        *_deterministic(results, card),
        *_cold_start(results, card),
        *_memory(results),
        *_agreement(results),
        *_transformers(results),
        *_kernels(results),
    ]


def _ceilings(found: dict[str, Any], card: str) -> Iterator[Row]:
    labels = (("copy_gb_per_s", "device copy, bytes read and written", "GB/s"),
              ("matmul_tflop_per_s", "matmul 8192³ bf16", "TFLOP/s"))  # fmt: skip
    for key, metric, unit in labels:
        anchor = ANCHORS["ceilings", key]
        name = "the same kind of card, measured before"
        yield Row("the card", metric, unit, found.get(key), anchor.figure(card), name, better=Better.HIGHER)


def _workload(results: Results, name: str, card: str) -> Iterator[Row]:
    found = results.load(name).get("median", {})
    for key, metric, unit, better in METRICS[name]:
        anchor = ANCHORS.get((name, key))
        goal = anchor.goal(card) if anchor else None
        if found or goal is not None:
            figure = anchor.figure(card) if anchor else None
            yield Row(TITLES[name], metric, unit, found.get(key), figure, PEER, goal, better)


def _deterministic(results: Results, card: str) -> Iterator[Row]:
    title, batch1 = "deterministic mode", results.load("w3_batch1_deterministic").get("median", {})
    offline = results.load("w2_deterministic").get("median", {})
    kept = _ratio(offline.get("output_tokens_per_s"), _of(results, "w2", "output_tokens_per_s"))
    slower = _ratio(batch1.get("tpot_ms"), _of(results, "w3_batch1", "tpot_ms"))
    peers = (ANCHORS["deterministic", key].figure(card) for key in ("throughput_kept", "tpot_ratio"))
    peer_kept, peer_slower = peers
    yield Row(title, "W2, output tokens", "tok/s", offline.get("output_tokens_per_s"), better=Better.HIGHER)
    yield Row(title, "share of W2's throughput kept", "×", kept, peer_kept, PEER, DETERMINISTIC_KEEPS, Better.HIGHER)
    yield Row(title, "TPOT at batch 1", "ms", batch1.get("tpot_ms"))
    yield Row(title, "TPOT at batch 1, ÷ our own without it", "×", slower, peer_slower, PEER, DETERMINISTIC_TPOT_RATIO)
    equal = results.load("determinism")
    if equal:
        label = "answers that are bit-identical alone and in a full batch"
        yield Row(title, label, f"of {equal['asked']}", equal["equal"], goal=equal["asked"], better=Better.HIGHER)


def _cold_start(results: Results, card: str) -> Iterator[Row]:
    title = "cold start: process start to the first token of a 1,024-token prompt, 8B shape, no weights read"
    for name, metric in (("cold_start", "kernels compiled before"), ("cold_start_empty", "empty kernel cache")):
        found, anchor = results.load(name), ANCHORS[name, "total_s"]
        goal = COLD_START_GOAL_S if name == "cold_start" else None
        yield Row(title, metric, "s", found.get("total_s"), anchor.figure(card), PEER, goal)
        yield from (
            Row(title, f"{metric}: {key.removesuffix('_s').replace('_', ' ')}", "s", value)
            for key, value in found.items()
            if key != "total_s"
        )


def _memory(results: Results) -> Iterator[Row]:
    waste = _of(results, "w2", "kv_waste")
    if waste is not None:
        metric = "slots held that no token uses, mean over W2's steps"
        yield Row("KV memory", metric, "share", waste, goal=KV_WASTE_GOAL)


def _agreement(results: Results) -> Iterator[Row]:
    found = results.load("agreement")
    if found:
        title, unit = "W1's greedy tokens against the torch reference in float32", f"of {found['tokens']}"
        name = "the torch reference in bf16"
        yield Row(title, "tokens that are its most likely one", unit, found["ours_equal"], found["bf16_equal"], name,
                  better=Better.HIGHER)  # fmt: skip
        yield Row(title, "largest logit gap of a token that differs", "logits", found["ours_gap"], found["bf16_gap"],
                  name)  # fmt: skip


def _transformers(results: Results) -> Iterator[Row]:
    for name, found in results.load("transformers").items():
        title = f"beside transformers: {TITLES.get(name, name)}"
        for key, metric, unit, better in (THROUGHPUT, TTFT, TPOT):
            yield Row(title, metric, unit, _of(results, name, key), found[key], TRANSFORMERS, better=better)


def _kernels(results: Results) -> Iterator[Row]:
    for raw in results.load("kernels").get("rows", []):
        yield Row(**{**raw, "better": Better(raw["better"])})


def _of(results: Results, name: str, key: str) -> float | None:
    value: float | None = results.load(name).get("median", {}).get(key)
    return value


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def report(results: Results) -> Report:
    """The machine named is the one that was measured, not the one that makes the page."""
    measured, ceilings = results.load("machine"), results.load("ceilings")
    gpu = f"{ceilings['card']}, torch {ceilings['torch']}"
    return Report(f"{gpu}; {measured['machine']}", measured["commit"], measured["date"], tuple(rows(results)))


def words(notes: Path) -> Words:
    """The paragraphs around the table; `notes` is a text file with one paragraph of findings per line."""
    findings = [line.strip() for line in notes.read_text(encoding="utf-8").splitlines() if line.strip()]
    return Words(
        title="The engine on a GPU",
        command="make bench-engine",
        about=[
            "The engine's own process, driven over its socket with token ids: dummy weights, forced lengths, new "
            "prompts in each repeat, host clock around the whole blocking call. HTTP and text are left out, as they "
            f"are in the peer's figures. {PEER[:11]}'s figures were measured earlier with the same workloads on "
            "the kind of card named here; a goal is a ratio to them. `transformers` runs beside ours.",
        ],
        notes=findings,
    )
