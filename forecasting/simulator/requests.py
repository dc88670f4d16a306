"""Requests of a trace: when each came, how long its prompt was and how long its answer.

Arrays of equal length, sorted by arrival. The answer's length is for the engine alone; no autoscaler sees it before it
is produced.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forecasting.errors import BadSetting

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """arrival_s: (n,) float64, not falling, from 0. input_tokens, output_tokens: (n,) int64, at least 1.

    Raises:
        BadSetting: the lengths differ, the order is wrong, or a request has no tokens.
    """

    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    duration_s: float

    def __post_init__(self) -> None:
        n = len(self.arrival_s)
        if len(self.input_tokens) != n or len(self.output_tokens) != n:
            raise BadSetting(
                f"Requests: {n} arrivals, {len(self.input_tokens)} inputs and {len(self.output_tokens)} outputs;"
                " one each is needed."
            )
        if n and (self.arrival_s[0] < 0 or (np.diff(self.arrival_s) < 0).any()):
            raise BadSetting("Requests: arrivals must start at 0 or later and not go back; sort them.")
        if n and (self.input_tokens.min() < 1 or self.output_tokens.min() < 1):
            raise BadSetting("Requests: every request needs at least one input and one output token.")
        if n and self.duration_s < self.arrival_s[-1]:
            raise BadSetting(
                f"Requests: the trace lasts {self.duration_s:.0f} s, but a request comes at {self.arrival_s[-1]:.0f} s."
            )

    def __len__(self) -> int:
        return len(self.arrival_s)

    def between(self, start_s: float, end_s: float) -> Requests:
        """Those that come in [start_s, end_s), with times from 0."""
        first, last = np.searchsorted(self.arrival_s, [start_s, end_s])
        part = slice(int(first), int(last))
        return Requests(
            self.arrival_s[part] - start_s, self.input_tokens[part], self.output_tokens[part], end_s - start_s
        )

    def thinned(self, share: float, seed: int) -> Requests:
        """Each request is kept with probability `share`, independently (Bernoulli); times stay as they are.

        Raises:
            BadSetting: the share is not in (0, 1].
        """
        if not 0 < share <= 1:
            raise BadSetting(f"Requests: a share of {share} cannot be kept; more than 0 and at most 1 is needed.")
        if share == 1:
            return self
        kept = np.random.default_rng((seed, 0x7417)).random(len(self)) < share
        return Requests(self.arrival_s[kept], self.input_tokens[kept], self.output_tokens[kept], self.duration_s)


def of_columns(arrival_s: Floats, input_tokens: Ints, output_tokens: Ints, duration_s: float) -> Requests:
    """Requests in any order, sorted by arrival."""
    order = np.argsort(arrival_s, kind="stable")
    return Requests(arrival_s[order], input_tokens[order], output_tokens[order], duration_s)
