"""The stages of a run, in the order in which an engine can be shared: each measures one workload.

A stage says which engine it needs; the run keeps that engine until a stage needs another one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

from benchmarks.engine.driver import Engine
from benchmarks.engine.measures import check, medians, numbers
from benchmarks.engine.workloads import Rules, Workload

WARM_TOKENS = 24
WARM_REPEAT = 90
"""Its prompts are in no timed repeat, so that nothing of them is in the prefix cache."""


class Kind(StrEnum):
    """Which engine a stage needs."""

    NANO = "nano"
    LARGE = "large"
    """Set for throughput."""
    ONLINE = "online"
    """Set for latency under load: fewer tokens a step."""
    DETERMINISTIC = "deterministic"


Result: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    kind: Kind
    run: Callable[[Engine], Result]


def stages(rules: Rules, repeats: int) -> Iterator[Stage]:
    """Every stage that is driven over the engine's socket."""
    yield _repeated("w1", Kind.NANO, rules.nano, repeats)
    yield Stage("greedy_sample", Kind.NANO, lambda engine: greedy_sample(engine, rules))
    yield from _latency(rules, Kind.LARGE, rules.batches, repeats)
    yield _repeated("w5", Kind.LARGE, rules.prefix, repeats)
    yield _repeated("w2", Kind.LARGE, rules.offline, 1)
    for rate in reversed(rules.rates):
        yield _repeated(f"w4_rate{rate}", Kind.ONLINE, lambda _, rate=rate: rules.online(rate), 1)  # type: ignore[misc]
    yield from _latency(rules, Kind.DETERMINISTIC, rules.batches[:1], repeats)
    yield Stage("determinism", Kind.DETERMINISTIC, lambda engine: determinism(engine, rules))
    yield _repeated("w2_deterministic", Kind.DETERMINISTIC, rules.offline, 1)


def _latency(rules: Rules, kind: Kind, batches: tuple[int, ...], repeats: int) -> Iterator[Stage]:
    suffix = "_deterministic" if kind is Kind.DETERMINISTIC else ""
    for batch in batches:

        def workload(repeat: int, batch: int = batch) -> Workload:
            return rules.latency(repeat, batch)

        yield _repeated(f"w3_batch{batch}{suffix}", kind, workload, repeats)


def _repeated(name: str, kind: Kind, workload: Callable[[int], Workload], repeats: int) -> Stage:
    return Stage(name, kind, lambda engine: repeated(engine, workload, repeats))


def repeated(engine: Engine, workload: Callable[[int], Workload], repeats: int) -> Result:
    """Raises ValueError where an answer has another length than forced."""
    measured = []
    for repeat in range(repeats):
        drawn = workload(repeat)
        outcome = engine.run(drawn)
        check(drawn, outcome)
        measured.append(numbers(drawn, outcome))
        print(f"  {drawn.name} {_sentence(measured[-1])}", file=sys.stderr, flush=True)
    return {"median": medians(measured), "repeats": measured}


def _sentence(found: dict[str, float]) -> str:
    keys = ("seconds", "output_tokens_per_s", "steps", "ttft_ms", "ttft_p99_ms", "tpot_ms", "tpot_p99_ms")
    return ", ".join(f"{key} {found[key]:.5g}" for key in keys if key in found)


def determinism(engine: Engine, rules: Rules, asked: int = 4, crowd: int = 64) -> Result:
    """The first answers of W2, alone one after the other and then in a crowd, compared token for token."""
    full = rules.offline(1, crowd)
    alone = [
        engine.run(Workload("alone", full.model, full.temperature, (request,))).answers[0].tokens
        for request in full.requests[:asked]
    ]
    together = [answer.tokens for answer in engine.run(full).answers[:asked]]
    equal = sum(a == b for a, b in zip(alone, together, strict=True))
    return {"asked": len(alone), "equal": equal}


def greedy_sample(engine: Engine, rules: Rules, count: int = 8) -> Result:
    """W1 without temperature, all of it at once; its first answers are kept to be compared with the reference."""
    full = rules.nano(0)
    outcome = engine.run(Workload(full.name, full.model, 0.0, full.requests))
    check(full, outcome)
    pairs = zip(full.requests[:count], outcome.answers[:count], strict=True)
    return {"sequences": [{"prompt": request.prompt, "answer": answer.tokens} for request, answer in pairs]}


def warm_up(engine: Engine, rules: Rules, kind: Kind, idle_s: float) -> None:
    """Short answers at a large and at a small batch, then `idle_s` for what the engine prepares while it is idle."""
    workloads = [rules.latency(WARM_REPEAT, batch) for batch in (rules.batches[-1], rules.batches[0])]
    if kind is Kind.NANO:
        workloads = [rules.nano(WARM_REPEAT)]
    for drawn in workloads:
        engine.run(shortened(drawn, WARM_TOKENS))
    time.sleep(idle_s)


def shortened(workload: Workload, most: int) -> Workload:
    """The same requests with at most that many tokens of output."""
    requests = (replace(request, output_tokens=min(request.output_tokens, most)) for request in workload.requests)
    return replace(workload, requests=tuple(requests))
