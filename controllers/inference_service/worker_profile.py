"""What a worker's own benchmark answers. Pure: bytes in, a profile out, None of what is none."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import orjson

from crds.model import MeasuredProfile


@dataclass(frozen=True, slots=True)
class WorkerProfile:
    """The numbers of `crds.contract.WORKER_PATH_PROFILE`: seconds, and tokens of one worker."""

    alpha_s: float
    beta_s: float
    gamma_s: float
    delta_s: float
    request_s: float
    kv_tokens: int
    max_sequences: int
    chunk_tokens: int

    def of(self, accelerator: str, measured: str) -> MeasuredProfile:
        """As the status of a Model holds it."""
        return MeasuredProfile(
            accelerator=accelerator,
            measured=measured,
            alpha_us=_us(self.alpha_s),
            beta_us=_us(self.beta_s),
            gamma_us=_us(self.gamma_s),
            delta_us=_us(self.delta_s),
            request_us=_us(self.request_s),
            kv_tokens=self.kv_tokens,
            max_sequences=self.max_sequences,
            chunk_tokens=self.chunk_tokens,
        )


def profile_in(body: bytes) -> WorkerProfile | None:
    """None where a number is missing, not finite, negative, or zero that must not be."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict):
        return None
    found: dict[str, float] = {}
    for field in fields(WorkerProfile):
        value = said.get(field.name)
        least = 0 if field.name in ("gamma_s", "request_s") else 1e-9
        wanted = int if field.name.endswith(("tokens", "sequences")) else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted) or not least <= value < math.inf:
            return None
        if field.name.endswith("_s") and value > 1e5:
            return None
        found[field.name] = value
    profile = WorkerProfile(**found)  # type: ignore[arg-type]
    return profile if profile.max_sequences < profile.chunk_tokens else None


def _us(seconds: float) -> str:
    return f"{max(seconds, 0.0) * 1e6:.6f}"
