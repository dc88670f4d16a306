"""What this worker says of itself on `GET /load`: how full it is, and whether it moves. Asked by every gateway several
times a second, so it touches nothing but numbers that are there already. Never judges: each gateway does.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from worker_image.engine.client import EngineClient, running_and_waiting
from worker_image.server.state import ServerState

WINDOW_S: Final = 2.0


class Utilisation:
    """The share of the last `WINDOW_S` in which the engine computed, from what `busy_s` was at each asking."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()

    def at(self, now: float, busy_s: float) -> float:
        samples = self._samples
        samples.append((now, busy_s))
        # The newest of those that are older than the window stays, as the window's beginning.
        while len(samples) > 2 and samples[1][0] <= now - WINDOW_S:
            samples.popleft()
        began, busy_before_s = samples[0]
        return min((busy_s - busy_before_s) / (now - began), 1.0) if now > began else 0.0


class LoadReport:
    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._utilisation = Utilisation()

    def facts(self, now: float) -> dict[str, Any]:
        """As `WORKER_PATH_LOAD` has it."""
        state, engine = self._state, self._state.engine
        load, problem = engine.load, state.why_not_taking()
        running, waiting = running_and_waiting(engine)
        return {
            "model": state.model,
            "ready": problem is None,
            "message": problem,
            "draining": state.draining,
            "running": running,
            "waiting": waiting,
            "max_num_seqs": state.max_num_seqs,
            "kv_usage": round(load.kv_usage, 4),
            "utilisation": round(self._utilisation.at(now, engine.busy_s), 3),
            "steps": load.steps,
            "stalled_s": round(engine.stalled_for_s(now), 3),
            "step": _step(engine),
            "prefix_queried_tokens": load.prefix_queried_tokens,
            "prefix_hit_tokens": load.prefix_hit_tokens,
        }


def _step(engine: EngineClient) -> dict[str, Any] | None:
    expected = engine.expected
    return None if expected is None else {"kind": expected.kind, "expected_s": round(expected.expected_s, 3)}
