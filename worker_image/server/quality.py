"""What an answer is like, in four numbers: length, how much repeats, whether it refuses, how sure the model was.

Keeps the last token ids and the first characters of an answer until it ends, and then only the numbers. Judges nothing:
the operator compares them with what is usual for the service (docs/quality.md).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import Metric

from crds.contract import (
    METRIC_ANSWER_REFUSALS,
    METRIC_ANSWER_REPETITION,
    METRIC_ANSWER_SURPRISE,
    METRIC_ANSWER_TOKENS,
)
from worker_image.engine.messages import TokenOut
from worker_image.server.histogram import Histogram, Tally, counter_family, one_two_five

GRAM: Final = 4
LAST_TOKENS: Final = 256
"""A model that loops does so to the end of its answer."""
LEAST_ALLOWED_TOKENS: Final = 16
"""A request that allows fewer asks for no answer to speak of: probes are such."""
OPENING_CHARS: Final = 160
REFUSAL_OPENINGS: Final = (
    "i'm sorry, but", "i am sorry, but", "i'm sorry, i can", "i am sorry, i can", "sorry, but i", "sorry, i can",
    "i apologize, but", "i can't", "i cannot", "i can not", "i won't", "i will not be able", "i'm not able to",
    "i am not able to", "i'm unable to", "i am unable to", "i'm not comfortable", "i must decline", "i have to decline",
    "as an ai", "as a language model", "unfortunately, i can", "unfortunately, i'm not able",
    "unfortunately, i am not able",
)  # fmt: skip
"""How English answers begin that refuse. A refusal in other words or another language is not seen, and one that begins
like this and helps all the same is counted: the share is compared with itself, never read as a number of refusals."""
_LEADING: Final = re.compile(r"^[\s\"'*_#>-]+")
REPETITION_BOUNDS: Final = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SURPRISE_BOUNDS_NATS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
LONGEST_ANSWER: Final = 200_000


def repetition(ids: Sequence[int]) -> float:
    """Share of the runs of four tokens that were there before: 0 is none, 1 nothing else."""
    n_grams = len(ids) - GRAM + 1
    if n_grams < 1:
        return 0.0
    return 1.0 - len(set(zip(*(ids[start:] for start in range(GRAM)), strict=False))) / n_grams


def refuses(opening: str) -> bool:
    """Whether an answer begins as a refusal does."""
    return _LEADING.sub("", opening).replace("’", "'").lower().startswith(REFUSAL_OPENINGS)


class AnswerSoFar:
    """Of one answer, as its tokens come."""

    __slots__ = ("_last", "_opening", "_surprise", "_surprised")

    def __init__(self) -> None:
        self._last: deque[int] = deque(maxlen=LAST_TOKENS)
        self._opening = ""
        self._surprise, self._surprised = 0.0, 0

    def take(self, tokens: Sequence[TokenOut], text: str) -> None:
        """The newest tokens, and the text that they came to."""
        for one in tokens:
            self._last.append(one.token)
            if one.logprobs is not None:
                self._surprise -= one.logprobs.chosen
                self._surprised += 1
        if len(self._opening) < OPENING_CHARS:
            self._opening += text[:OPENING_CHARS]

    @property
    def repetition(self) -> float:
        return repetition(tuple(self._last))

    @property
    def refuses(self) -> bool:
        return refuses(self._opening)

    @property
    def surprise_nats(self) -> float | None:
        """Mean −log p of its tokens, which estimates the entropy; None unless log probabilities were asked for."""
        return self._surprise / self._surprised if self._surprised else None


class QualityMetrics:
    """Of answers that ended by themselves or by their limit, of those that could be long; not where a client left."""

    def __init__(self) -> None:
        self.tokens, self.repetition = Histogram(one_two_five(LONGEST_ANSWER)), Histogram(REPETITION_BOUNDS)
        self.surprise, self.refusals = Histogram(SURPRISE_BOUNDS_NATS), Tally()

    def ended(self, answer: AnswerSoFar, n_tokens: int) -> None:
        self.tokens.observe(n_tokens)
        self.repetition.observe(answer.repetition)
        self.refusals.value += answer.refuses
        if answer.surprise_nats is not None:
            self.surprise.observe(answer.surprise_nats)

    def families(self, label: str, model_name: str) -> Iterator[Metric]:
        rows = (
            (METRIC_ANSWER_TOKENS, "Length of answers that ended by themselves or by their limit.", self.tokens),
            (METRIC_ANSWER_REPETITION, "Share of the runs of four tokens that repeat, of these.", self.repetition),
            (METRIC_ANSWER_SURPRISE, "Mean -log p of their tokens, where it was asked for.", self.surprise),
        )
        for name, text, histogram in rows:
            yield histogram.family(name, text, label, model_name)
        name = METRIC_ANSWER_REFUSALS.removesuffix("_total")
        yield counter_family(name, "Those of them that begin like a refusal.", {label: model_name}, self.refusals.value)
