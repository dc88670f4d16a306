"""Whether a model's answers have become unlike those of its baseline: a sequential test on means of windows. Pure.

A window is some minutes of one revision with enough answers. The first ones of a service are its baseline; every later
window is placed in the predictive Student distribution of the baseline, less what the window before it foretells where
windows that follow each other are alike, and a two-sided CUSUM (Page 1954) adds up what is more than the slack away. A
new revision is held against the baseline of the one before it until it has its own. What is found is advice: nothing
here moves traffic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from statistics import NormalDist
from typing import Any, Final

from scipy.special import stdtr

SLACK: Final = 2.0
"""Standard deviations of a window that count for nothing: a baseline knows its own mean and spread only so well. It is
half of the change that is looked for, so it shrinks with what such a change is still worth where windows are alike."""
LEAST_SLACK: Final = 1.0
MOST_ALIKE: Final = 0.9
"""Of the correlation with the window before that is believed: beyond it nothing would be left to look at."""
BOUND: Final = 8.0
"""A score above it is drift. Simulated: docs/quality.md."""
MOST_A_WINDOW: Final = 5.0
"""A window counts for at most so many standard deviations: it takes three to be heard."""
REVISIONS_KEPT: Final = 3
_NORMAL: Final = NormalDist()


class Measure(StrEnum):
    """What is compared."""

    LENGTH = "length"
    REFUSALS = "refusals"
    REPETITION = "repetition"
    SURPRISE = "surprise"


@dataclass(frozen=True, slots=True)
class Policy:
    """When a window is complete, and how many make a baseline."""

    window_s: float = 900.0
    least_answers: int = 100
    baseline_windows: int = 96


@dataclass(frozen=True, slots=True)
class Moments:
    """Of the windows of a baseline: how many, their mean, the sum of squares around it (Welford), and, from the first
    value, the sum of products of neighbours."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    first: float = 0.0
    last: float = 0.0

    def with_(self, value: float) -> Moments:
        mean = self.mean + (value - self.mean) / (self.n + 1)
        squares = self.squares + (value - self.mean) * (value - mean)
        if self.n == 0:
            return Moments(1, mean, squares, 0.0, value, value)
        products = self.products + (value - self.first) * (self.last - self.first)
        return Moments(self.n + 1, mean, squares, products, self.first, value)

    @property
    def alike(self) -> float:
        """Correlation of a window with the one before it, from 0, without the bias of a short series (Kendall 1954)."""
        if self.n < 4 or self.squares <= 0.0:
            return 0.0
        middle, end = self.mean - self.first, self.last - self.first
        together = self.products - middle * (2 * self.n * middle - end) + (self.n - 1) * middle**2
        return min(max((self.n * together / self.squares + 1) / (self.n - 3), 0.0), MOST_ALIKE)

    @property
    def effective(self) -> float:
        """Independent windows that would know the mean as well; two at least."""
        return max(2.0, self.n * (1 - self.alike) / (1 + self.alike))

    def deviation(self, measure: Measure) -> float:
        """Of one window from the next, and never less than what is worth a word."""
        variance = self.squares / self.n / (1 - 1 / self.effective)
        return max(math.sqrt(variance), _worth(measure, self.mean))


def _worth(measure: Measure, mean: float) -> float:
    """Smaller deviations are nothing to tell anybody: a twentieth of a length, a hundredth of all answers."""
    return 0.05 * abs(mean) if measure in (Measure.LENGTH, Measure.SURPRISE) else 0.01


@dataclass(frozen=True, slots=True)
class Score:
    """A CUSUM to each side, and the value of the last window."""

    up: float = 0.0
    down: float = 0.0
    value: float = 0.0

    def after(self, deviations: float, value: float, slack: float = SLACK) -> Score:
        """Scores stop at twice the bound, so that they fall again when the windows are as they were."""
        up = max(0.0, self.up + deviations - slack)
        down = max(0.0, self.down - deviations - slack)
        return Score(min(up, 2 * BOUND), min(down, 2 * BOUND), value)


@dataclass(frozen=True, slots=True)
class Own:
    """What is known of one revision."""

    moments: Mapping[Measure, Moments] = field(default_factory=dict)
    scores: Mapping[Measure, Score] = field(default_factory=dict)
    drifting: frozenset[Measure] = frozenset()


@dataclass(frozen=True, slots=True)
class Watched:
    """What is known of a service. `baseline` is of the revision `origin`."""

    origin: str | None = None
    baseline: Mapping[Measure, Moments] = field(default_factory=dict)
    revisions: Mapping[str, Own] = field(default_factory=dict)
    """The one seen last is the last."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A measure of a revision that is not what it was."""

    revision: str
    measure: Measure
    score: float
    above: bool
    reason: str
    message: str


def after(watched: Watched, revision: str, window: Mapping[Measure, float], policy: Policy) -> Watched:
    """What is known once a window is complete. A measure that the window lacks stays as it is."""
    own = watched.revisions.get(revision) or Own()
    baseline, origin = watched.baseline, watched.origin
    scores, moments = dict(own.scores), dict(own.moments)
    for measure, value in window.items():
        reference = baseline.get(measure)
        if reference is not None:
            scores[measure] = _next(scores.get(measure), reference, measure, value)
        if origin != revision:
            moments[measure] = moments.get(measure, Moments()).with_(value)
    others = {name: one for name, one in watched.revisions.items() if name != revision}
    if origin != revision and max((one.n for one in moments.values()), default=0) >= policy.baseline_windows:
        # From now on it is held against itself. What has too few windows of it is held against nothing.
        baseline, origin, scores = _complete(moments, policy), revision, {}
        moments = {}
        others = {name: Own(one.moments) for name, one in others.items()}
    own = Own(moments, scores, _drifting(own.drifting, scores))
    kept = dict([*others.items(), (revision, own)][-REVISIONS_KEPT:])
    return replace(watched, origin=origin, baseline=baseline, revisions=kept)


def _next(before: Score | None, reference: Moments, measure: Measure, value: float) -> Score:
    """Only what the window before does not foretell counts (residuals of an AR(1)). A lasting change of k deviations
    leaves k·√((1 − r)/(1 + r)) in each of them, so the slack is half of what a change of four leaves."""
    found = deviations(reference, measure, value)
    if before is None:
        return Score().after(found, value)
    alike = reference.alike
    news = (found - alike * deviations(reference, measure, before.value)) / math.sqrt(1 - alike**2)
    slack = max(LEAST_SLACK, SLACK * math.sqrt((1 - alike) / (1 + alike)))
    return before.after(min(max(news, -MOST_A_WINDOW), MOST_A_WINDOW), value, slack)


def _complete(moments: Mapping[Measure, Moments], policy: Policy) -> Mapping[Measure, Moments]:
    return {measure: one for measure, one in moments.items() if 2 * one.n >= policy.baseline_windows and one.n > 1}


def _drifting(before: frozenset[Measure], scores: Mapping[Measure, Score]) -> frozenset[Measure]:
    """Begins above the bound and ends below half of it, so that a score at the bound does not come and go."""
    highest = {measure: max(one.up, one.down) for measure, one in scores.items()}
    return frozenset(
        measure for measure, score in highest.items() if score > (BOUND / 2 if measure in before else BOUND)
    )


def deviations(reference: Moments, measure: Measure, value: float) -> float:
    """Where a window lies, in standard deviations of a normal distribution, as the baseline alone foresees it."""
    spread = reference.deviation(measure) * math.sqrt(1.0 + 1.0 / reference.effective)
    if spread == 0.0:
        return 0.0 if value == reference.mean else math.copysign(MOST_A_WINDOW, value - reference.mean)
    tail = float(stdtr(reference.effective - 1, -abs(value - reference.mean) / spread))
    if tail <= _NORMAL.cdf(-MOST_A_WINDOW):
        return math.copysign(MOST_A_WINDOW, value - reference.mean)
    return math.copysign(-_NORMAL.inv_cdf(tail), value - reference.mean)


# --- words ------------------------------------------------------------------------------------------------------------
_WORDS: Final = {
    (Measure.LENGTH, True): ("AnswersLonger", "Answers are longer"),
    (Measure.LENGTH, False): ("AnswersShorter", "Answers are shorter"),
    (Measure.REFUSALS, True): ("MoreRefusals", "More answers begin like a refusal"),
    (Measure.REFUSALS, False): ("FewerRefusals", "Fewer answers begin like a refusal"),
    (Measure.REPETITION, True): ("MoreRepetition", "Answers repeat themselves more"),
    (Measure.REPETITION, False): ("LessRepetition", "Answers repeat themselves less"),
    (Measure.SURPRISE, True): ("MoreSurprise", "The model is less sure of its answers"),
    (Measure.SURPRISE, False): ("LessSurprise", "The model is surer of its answers"),
}


def drifts(watched: Watched) -> Iterator[Drift]:
    """Of all revisions, the newest first."""
    for revision, own in reversed(list(watched.revisions.items())):
        for measure in sorted(own.drifting):
            score, reference = own.scores[measure], watched.baseline[measure]
            above = score.up >= score.down
            reason, words = _WORDS[measure, above]
            message = (
                f"{words}: {_shown(measure, score.value)} in the last window of revision {revision}, "
                f"{_shown(measure, reference.mean)} ± {_shown(measure, reference.deviation(measure))} in the "
                f"{reference.n} windows of the baseline (revision {watched.origin}); "
                f"score {max(score.up, score.down):.1f}, drift from {BOUND:g} until {BOUND / 2:g}."
            )
            yield Drift(revision, measure, max(score.up, score.down), above, reason, message)


def _shown(measure: Measure, value: float) -> str:
    match measure:
        case Measure.LENGTH:
            return f"{value:.0f} tokens"
        case Measure.SURPRISE:
            return f"{value:.2f} nats"
    return f"{value:.1%}"


# --- memory -----------------------------------------------------------------------------------------------------------
def plain(watched: Watched) -> dict[str, Any]:
    """For a store: JSON."""
    return {
        "origin": watched.origin,
        "baseline": _plain_moments(watched.baseline),
        "revisions": [
            {
                "revision": name,
                "moments": _plain_moments(one.moments),
                "scores": {measure.value: [score.up, score.down, score.value] for measure, score in one.scores.items()},
                "drifting": sorted(one.drifting),
            }
            for name, one in watched.revisions.items()
        ],
    }


def watched_in(said: Mapping[str, Any]) -> Watched:
    """Raises KeyError, TypeError or ValueError for what is none."""
    revisions = {
        str(one["revision"]): Own(
            _moments_in(one["moments"]),
            {Measure(name): Score(*map(float, score)) for name, score in one["scores"].items()},
            frozenset(Measure(name) for name in one["drifting"]),
        )
        for one in said["revisions"]
    }
    return Watched(said["origin"], _moments_in(said["baseline"]), revisions)


def _plain_moments(moments: Mapping[Measure, Moments]) -> dict[str, list[float]]:
    return {
        measure.value: [one.n, one.mean, one.squares, one.products, one.first, one.last]
        for measure, one in moments.items()
    }


def _moments_in(said: Mapping[str, Any]) -> dict[Measure, Moments]:
    """A baseline of a release that kept no products is one of independent windows."""
    return {Measure(name): _moments(*one) for name, one in said.items()}


def _moments(n: Any, mean: Any, squares: Any, *of_neighbours: Any) -> Moments:
    if not of_neighbours:
        # Without products `alike` must be 0: those of a mean at the first value.
        return Moments(int(n), float(mean), float(squares), first=float(mean), last=float(mean))
    products, first, last = map(float, of_neighbours)
    return Moments(int(n), float(mean), float(squares), products, first, last)
