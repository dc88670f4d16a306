"""From evidence to verdicts, each with its arithmetic: worse, no worse, undecided, or too little data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from controllers.plans.canary.evidence import Evidence, MetricEvidence, mean, share
from crds.rollout import Analysis, MetricVerdict, RolloutMetric, VerdictWord
from forecasting.comparison.evidence import holm, mixture, p_value, weaker_half
from forecasting.comparison.tilt import Array

_LEAST: Final = 20
"""Observations of each revision, below which no metric is called undecided."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """All metrics that are asked for and that anything is known of."""

    verdicts: tuple[MetricVerdict, ...]

    @property
    def worse(self) -> tuple[MetricVerdict, ...]:
        return tuple(one for one in self.verdicts if one.verdict is VerdictWord.WORSE)

    @property
    def open(self) -> tuple[MetricVerdict, ...]:
        """Metrics that have not been shown to be no worse."""
        return tuple(one for one in self.verdicts if one.verdict is not VerdictWord.NO_WORSE)


def judge(evidence: Evidence, analysis: Analysis) -> Judgement:
    """The verdicts of this moment. A metric that neither revision has any observation of is left out."""
    asked = analysis.metrics or list(RolloutMetric)
    known = {one: evidence.metrics[one] for one in asked if _is_measured(evidence.metrics.get(one))}
    alpha = 1 - share(analysis.confidence)
    # What is not measured yet counts as well: else the first metric to be known would have all the risk for itself.
    p_values = dict.fromkeys(asked, 1.0) | {one: p_value(_log(mixture, it.worse)) for one, it in known.items()}
    worse = holm(p_values, alpha)
    return Judgement(
        tuple(
            _verdict(metric, one, p_values[metric], alpha, len(asked), metric in worse) for metric, one in known.items()
        )
    )


def _is_measured(evidence: MetricEvidence | None) -> bool:
    return evidence is not None and bool(evidence.stable[0] or evidence.candidate[0])


def _log(combine: Callable[[Array], Array], evidence: Sequence[float]) -> float:
    return float(combine(np.array(evidence))) if evidence else 0.0


def _verdict(
    metric: RolloutMetric, evidence: MetricEvidence, p_worse: float, alpha: float, family: int, is_worse: bool
) -> MetricVerdict:
    combine = weaker_half if metric is RolloutMetric.LENGTH else mixture
    p_no_worse = p_value(_log(combine, evidence.no_worse))
    if is_worse:
        word, why = VerdictWord.WORSE, f"worse: p {_p(p_worse)} of at most {_p(alpha)}, Holm over {family}"
    elif p_no_worse <= alpha:
        word, why = VerdictWord.NO_WORSE, f"no worse: p {_p(p_no_worse)} ≤ {_p(alpha)}"
    else:
        few = min(evidence.stable[0], evidence.candidate[0]) < _LEAST
        word = VerdictWord.TOO_LITTLE_DATA if few else VerdictWord.UNDECIDED
        why = f"p of worse {_p(p_worse)}, of no worse {_p(p_no_worse)}, decided at {_p(alpha)}"
    return MetricVerdict(
        metric=metric,
        verdict=word,
        message=f"{metric.value}: {_amounts(metric, evidence)}; {why}",
        stable=list(evidence.stable),
        candidate=list(evidence.candidate),
        worse=[round(one * 1000) for one in evidence.worse],
        no_worse=[round(one * 1000) for one in evidence.no_worse],
    )


def _amounts(metric: RolloutMetric, evidence: MetricEvidence) -> str:
    """`new 3.1% of 480, old 0.9% of 4,320`"""
    return f"new {_amount(metric, evidence.candidate)}, old {_amount(metric, evidence.stable)}"


def _amount(metric: RolloutMetric, counts: tuple[int, int]) -> str:
    if metric is RolloutMetric.ERRORS:
        return f"{100 * counts[1] / counts[0] if counts[0] else 0:.3g}% of {counts[0]:,}"
    value = mean(metric, counts)
    if value is None:
        return "nothing yet"
    text = f"{value:.0f} tokens" if metric is RolloutMetric.LENGTH else seconds_text(value)
    return f"{text} of {counts[0]:,}"


def seconds_text(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _p(value: float) -> str:
    """Two digits that differ only when something does; `<0.0001` below."""
    return (
        "<0.0001" if value < 1e-4 else f"{value:.{max(2, 1 - math.floor(math.log10(value)))}f}".rstrip("0").rstrip(".")
    )
