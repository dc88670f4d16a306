"""Ways to judge a canary, all shown the same looks: ours, and three that are in use elsewhere.

A judge says after every look which runs it promotes and which it rolls back; the first word of a run counts.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from benchmarks.canary.traffic import CANDIDATE, LOOKS, Array, Look
from controllers.plans.canary.evidence import buckets, share
from crds.rollout import Analysis
from forecasting.comparison import errors, ranks
from forecasting.comparison.evidence import mixture, weaker_half

Flags = npt.NDArray[np.bool_]
_PEER_ALPHA: Final = 0.05
_FAILED_CHECKS: Final = 3
"""Consecutive checks that fail before Argo Rollouts or Flagger give up, as their examples have it."""


class Judge(Protocol):
    """Keeps what it needs of earlier looks."""

    def look(self, stable: Look, candidate: Look, at: int) -> tuple[Flags, Flags]:
        """Runs to promote, runs to roll back; `at` counts from 0."""
        ...


class Ours:
    """The tests and the rule of `controllers.plans.canary`, for many runs at once."""

    def __init__(self, runs: int, analysis: Analysis) -> None:
        self.analysis = analysis
        self._alpha = 1 - share(analysis.confidence)
        self._open = np.ones(runs, dtype=bool)
        self._before = np.zeros((runs, 2))
        self._sums: dict[str, Array] = {}

    def look(self, stable: Look, candidate: Look, at: int) -> tuple[Flags, Flags]:
        runs = self._open.copy()
        promote, back = np.zeros_like(runs), np.zeros_like(runs)
        worse, fine = self._evidence(stable.of(runs), candidate.of(runs), runs)
        # The first rejection of Holm's procedure is Bonferroni's, and one is enough to roll back.
        back[runs] = worse.max(0) >= np.log(len(worse) / self._alpha)
        promote[runs] = (fine.min(0) >= np.log(1 / self._alpha)) & ~back[runs]
        if (at + 1) * CANDIDATE < self.analysis.min_requests:
            promote[:] = False
        self._open &= ~(promote | back)
        return promote, back

    def _evidence(self, stable: Look, candidate: Look, runs: Flags) -> tuple[Array, Array]:
        tolerated, margin = buckets(self.analysis.tolerance), buckets(self.analysis.margin)
        odds, points = self.analysis.tolerance / 100, share(self.analysis.error_margin)
        worse = [
            mixture(self._sum("errors+", runs, errors.more(stable.errors, candidate.errors, odds))),
            mixture(self._sum("ttft+", runs, ranks.above(stable.ttft, candidate.ttft, tolerated))),
            mixture(self._sum("tpot+", runs, ranks.above(stable.tpot, candidate.tpot, tolerated))),
            mixture(self._sum("length+", runs, ranks.apart(stable.length, candidate.length, tolerated))),
        ]
        few = errors.no_more(stable.errors, candidate.errors, points, self._before[runs])
        self._before[runs] += stable.errors + candidate.errors
        fine = [
            mixture(self._sum("errors-", runs, few)),
            mixture(self._sum("ttft-", runs, ranks.below(stable.ttft, candidate.ttft, margin))),
            mixture(self._sum("tpot-", runs, ranks.below(stable.tpot, candidate.tpot, margin))),
            weaker_half(self._sum("length-", runs, ranks.within(stable.length, candidate.length, margin))),
        ]
        return np.array(worse), np.array(fine)

    def _sum(self, name: str, runs: Flags, increments: Array) -> Array:
        sums = self._sums.setdefault(name, np.zeros((len(runs), increments.shape[-1])))
        sums[runs] += increments
        return sums[runs]


class ZTest:
    """Two-sided z-tests of the sums so far, each at 5 %: at every look, or once at the end."""

    def __init__(self, *, repeated: bool) -> None:
        self._repeated = repeated
        self._errors: list[Array] = []
        self._moments: dict[str, list[Array]] = {}

    def look(self, stable: Look, candidate: Look, at: int) -> tuple[Flags, Flags]:
        self._errors = _added(self._errors, [stable.errors, candidate.errors])
        for name in stable.moments:
            both = [stable.moments[name], candidate.moments[name]]
            self._moments[name] = _added(self._moments.get(name, []), both)
        last = at == LOOKS - 1
        back = np.zeros(len(stable.errors), dtype=bool)
        if last or self._repeated:
            tests = [_z_of_rates(*self._errors), *(_z_of_means(*both) for both in self._moments.values())]
            back = np.any([2 * ndtr(-np.abs(z)) < _PEER_ALPHA for z in tests], axis=0)
        return (~back if last else np.zeros_like(back)), back


class Thresholds:
    """As metric templates of Argo Rollouts and Flagger are written: each check looks at its interval alone. It fails
    beyond 2 % of errors, or when a mean is more than a tenth above the old one's; three failures in a row end it."""

    def __init__(self) -> None:
        self._failed: npt.NDArray[np.int64] | None = None

    def look(self, stable: Look, candidate: Look, at: int) -> tuple[Flags, Flags]:
        failed = candidate.errors[:, 1] / candidate.errors.sum(1) > 0.02
        for name in ("ttft", "tpot"):
            old, new = (one.moments[name][:, 1] / one.moments[name][:, 0] for one in (stable, candidate))
            failed |= new > 1.1 * old
        before = np.zeros(len(failed), dtype=np.int64) if self._failed is None else self._failed
        self._failed = np.where(failed, before + 1, 0)
        back = self._failed >= _FAILED_CHECKS
        return (~back if at == LOOKS - 1 else np.zeros_like(back)), back


def _added(before: list[Array], now: list[Array]) -> list[Array]:
    return [a + b for a, b in zip(before, now, strict=True)] if before else [one.copy() for one in now]


def _z_of_rates(stable: Array, candidate: Array) -> Array:
    n, m = stable.sum(1), candidate.sum(1)
    pooled = (stable[:, 1] + candidate[:, 1]) / (n + m)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / n + 1 / m), 1e-12))
    return np.asarray((candidate[:, 1] / m - stable[:, 1] / n) / spread)


def _z_of_means(stable: Array, candidate: Array) -> Array:
    means = [one[:, 1] / one[:, 0] for one in (stable, candidate)]
    variances = [
        (one[:, 2] / one[:, 0] - mean**2) / one[:, 0] for one, mean in zip((stable, candidate), means, strict=True)
    ]
    return np.asarray((means[1] - means[0]) / np.sqrt(variances[0] + variances[1]))
