"""Answers to fixed prompts: what the candidate says differently, against what the old revision says differently twice.

Greedy answers of one model differ between two askings, too: batches change the order of sums. That noise is measured,
and only what goes beyond it is the candidate's fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crds.rollout import OutputCheck


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer: its tokens and the logarithm of each one's probability."""

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt: the old revision's answer, its answer once more, and the candidate's."""

    stable: Answer
    again: Answer
    candidate: Answer


@dataclass(frozen=True, slots=True)
class OutputFinding:
    """Whether the candidate's answers are as they should be, as arithmetic."""

    ok: bool
    message: str


def compare_outputs(asked: Sequence[Asked], check: OutputCheck) -> OutputFinding:
    """Over all prompts together."""
    noise, drop = (_differing([(one.stable, other(one)) for one in asked]) for other in (_again, _candidate))
    noise_nats, nats = (_divergence([(one.stable, other(one)) for one in asked]) for other in (_again, _candidate))
    ok = drop - noise <= check.max_drop / 100 and nats - noise_nats <= float(check.max_divergence)
    return OutputFinding(
        ok,
        f"{len(asked)} prompts: {100 * drop:.0f}% of tokens differ, {100 * noise:.0f}% are noise, "
        f"{check.max_drop}% more are allowed; log probabilities {nats:.2f} apart, {noise_nats:.2f} are noise, "
        f"{check.max_divergence} more are allowed",
    )


def _again(asked: Asked) -> Answer:
    return asked.again


def _candidate(asked: Asked) -> Answer:
    return asked.candidate


def agreed(one: Answer, other: Answer) -> int:
    """Tokens before the first that differs."""
    pairs = zip(one.tokens, other.tokens, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one.tokens), len(other.tokens)))


def _differing(pairs: Sequence[tuple[Answer, Answer]]) -> float:
    """The share of tokens after the first difference: what follows it answers another text."""
    longest = sum(max(len(a.tokens), len(b.tokens)) for a, b in pairs)
    return 1 - sum(agreed(a, b) for a, b in pairs) / longest if longest else 0.0


def _divergence(pairs: Sequence[tuple[Answer, Answer]]) -> float:
    """The mean distance of log probabilities of the tokens that both chose."""
    apart = [
        abs(x - y)
        for a, b in pairs
        for x, y in zip(a.logprobs[: agreed(a, b)], b.logprobs[: agreed(a, b)], strict=True)
    ]
    return sum(apart) / len(apart) if apart else 0.0
