"""The words around the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report import Words


def words(source: str, duration_s: float, seeds: int, winners: Sequence[str], load: float) -> Words:
    return Words(
        title="Scheduling inside a worker",
        command="FORETIDE_DATA=<folder of the data sets> make bench-scheduling",
        about=(
            "The worker's own scheduler plans every step; a cost model of one replica (Llama-3.1-8B, bf16, H100, 1,024 "
            "tokens a step) says how long the step takes. The clock is virtual and no GPU takes part: numbers are "
            "the same on every machine, but for the CPU time at the end.",
            f"Lengths: {source}. Mixed classes: Poisson arrivals at the rate that the replica carries, 2.2 times that "
            "for a third of each minute and 0.4 times for the rest; P0 10 %, P1 30 %, P2 40 %, P3 20 %, ten equal "
            f"tenants; {duration_s:.0f} s, mean of {seeds} seeds. A request attains its SLA when its first token comes "
            "within 100 ms, 1 s, 10 s or 60 s by class and the others within 100 ms on average (P3: at any pace).",
            "Flood: nine tenants ask for 6 % of the capacity each, the tenth for twice all of it. All are P1.",
        ),
        notes=(
            "**Peers** are written after their sources and run on the same cost model: vLLM v1's loop with its two "
            "policies, and the virtual token counter as published in that loop. vLLM's priority does not age, and "
            "takes no running request's place before the cache is full.",
            "A goal that equals the peer's number says: not worse than the peer.",
            "**Batching**: the column `continuous` is continuous batching on the same requests. Static and dynamic "
            "batches let nobody join, so that the prompts of others do not hold up their decodes.",
            *winners,
            "Feedback knows no classes: it serves short work first, whosoever it is. Fair knows them inside a tenant.",
            "The Jain index divides what each tenant was served by its max-min fair share of all that was served.",
            f"The load average at the end was {load:.1f}: beside other work, CPU times grow (nothing else does).",
        ),
    )
