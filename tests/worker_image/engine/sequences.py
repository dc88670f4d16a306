"""Sequences for tests of the scheduler alone."""

from __future__ import annotations

from itertools import count

from worker_image.engine.messages import Sampling
from worker_image.engine.sequence import Sequence
from worker_image.engine.standing import Standing

_IDS = count()


def a_sequence(
    *, at: float = 0.0, priority: int = 2, tenant: str = "", weight: float = 1.0, n_prompt: int = 4,
    max_tokens: int = 8, n_generated: int = 0, deadline_s: float | None = None, ttft_target_s: float | None = None,
) -> Sequence:  # fmt: skip
    """Waiting since `at`; its prompt is like no other's."""
    standing = Standing(priority, tenant, weight, deadline_s, ttft_target_s)
    number = next(_IDS)
    tokens = [1000 + number, *range(1, n_prompt + n_generated)]
    return Sequence(
        number, tokens, Sampling(max_tokens, seed=0), limit=n_prompt + max_tokens, n_prompt=n_prompt,
        standing=standing, arrived_at=at,
    )  # fmt: skip
