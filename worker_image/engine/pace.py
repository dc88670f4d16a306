"""How long the step that is about to begin should take: what tells a long prefill from an engine that hangs.

Learnt from the steps before, slowest first: what took long once is expected to again for a while. Never measures time
itself, and never judges: whoever asks the worker for its load does.
"""

from __future__ import annotations

from typing import Final

from worker_image.engine.messages import Expect, StepKind

WARM_UP_S: Final = 20.0
"""The first step of its kind: kernels are compiled, memory is touched for the first time."""
ANNOUNCED_FROM_S: Final = 0.5
"""Shorter steps are not worth a message."""
_FORGET: Final = 0.2
"""Of the difference to a quicker step, with each."""
_GROW: Final = 4.0
"""One step teaches at most this much more than those before: a process that was stopped for a while is no pace."""


class Pace:
    def __init__(self) -> None:
        self._prefill_s_per_token: float | None = None
        self._decode_s: float | None = None

    def expected(self, n_prefill: int, n_decodes: int) -> Expect:
        """Of a step with so many prompt tokens and so many rows that decode."""
        decode_s = self._decode_s or 0.0
        if n_prefill:
            per_token_s = self._prefill_s_per_token
            if per_token_s is None:
                return Expect(StepKind.WARM_UP, WARM_UP_S)
            return Expect(StepKind.PREFILL, per_token_s * n_prefill + decode_s)
        return Expect(StepKind.DECODE, decode_s) if self._decode_s else Expect(StepKind.WARM_UP, WARM_UP_S)

    def took(self, n_prefill: int, n_decodes: int, step_s: float) -> None:
        """Learns from a step that has been made."""
        if n_prefill:
            self._prefill_s_per_token = _learnt(self._prefill_s_per_token, step_s / n_prefill)
        elif n_decodes:
            self._decode_s = _learnt(self._decode_s, step_s)


def _learnt(before: float | None, seen: float) -> float:
    if before is None:
        return seen
    return min(seen, before * _GROW) if seen > before else before + _FORGET * (seen - before)
