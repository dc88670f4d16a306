"""What a worker's metrics page says its answers were like, as counts since that worker began. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controllers.plans.quality import Measure
from crds import contract

_FIELDS: Final = {
    f"{contract.METRIC_ANSWER_TOKENS}_count": "answers",
    f"{contract.METRIC_ANSWER_TOKENS}_sum": "tokens",
    f"{contract.METRIC_ANSWER_REPETITION}_sum": "repetition",
    contract.METRIC_ANSWER_REFUSALS: "refusals",
    f"{contract.METRIC_ANSWER_SURPRISE}_count": "surprised",
    f"{contract.METRIC_ANSWER_SURPRISE}_sum": "surprise",
}


@dataclass(frozen=True, slots=True)
class Answers:
    """How many, and sums over them; those whose log probabilities were asked for are counted apart."""

    answers: float = 0.0
    tokens: float = 0.0
    repetition: float = 0.0
    refusals: float = 0.0
    surprised: float = 0.0
    surprise: float = 0.0

    def __add__(self, other: Answers) -> Answers:
        return Answers(
            self.answers + other.answers,
            self.tokens + other.tokens,
            self.repetition + other.repetition,
            self.refusals + other.refusals,
            self.surprised + other.surprised,
            self.surprise + other.surprise,
        )

    def since(self, before: Answers) -> Answers:
        """What came after `before`. A count that fell was reset, and counts from zero."""
        if self.answers < before.answers:
            return self
        return self + Answers(
            -before.answers, -before.tokens, -before.repetition, -before.refusals, -before.surprised, -before.surprise
        )

    def means(self, least: int) -> Mapping[Measure, float]:
        """Of a window; nothing of what too few answers say."""
        found: dict[Measure, float] = {}
        if self.answers >= least:
            found[Measure.LENGTH] = self.tokens / self.answers
            found[Measure.REFUSALS] = self.refusals / self.answers
            found[Measure.REPETITION] = self.repetition / self.answers
        if self.surprised >= least:
            found[Measure.SURPRISE] = self.surprise / self.surprised
        return found


def answers_in(page: str) -> Answers | None:
    """Of all models of a page; None when it says nothing of answers."""
    sums: dict[str, float] = {}
    for line in page.splitlines():
        field = _FIELDS.get(line.partition("{")[0])
        value = _value(line)
        if field is not None and value is not None:
            sums[field] = sums.get(field, 0.0) + value
    return Answers(**sums) if "answers" in sums else None


def _value(line: str) -> float | None:
    words = line.rpartition("}")[2].split()
    try:
        value = float(words[0]) if words else float("nan")
    except ValueError:
        return None
    return value if 0 <= value < 1e15 else None
