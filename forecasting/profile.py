"""How long one iteration of an engine takes: a model on an accelerator, in eight numbers.

A profile is data (JSON, one file per model × accelerator), measured by the worker's own benchmark or taken from the
literature. Opens no files.

`T = max(α + γ·KV, δ·(B + P)) + β·B + request_s·admitted` for B decoding sequences, P prefill tokens and KV resident
tokens: either memory is the limit (weights and KV cache are read once an iteration) or arithmetic is.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, fields

from forecasting.errors import BadSetting


@dataclass(frozen=True, slots=True)
class Profile:
    """One replica. Times in seconds, sizes in tokens; `gpus` are the accelerators that one replica holds."""

    model: str
    accelerator: str
    alpha_s: float
    beta_s: float
    gamma_s: float
    delta_s: float
    request_s: float
    kv_tokens: int
    max_sequences: int
    chunk_tokens: int
    gpus: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                continue
            if not 0 <= value <= sys.float_info.max or (value == 0 and field.name not in ("gamma_s", "request_s")):
                raise BadSetting(
                    f"Profile {self.model} on {self.accelerator}: {field.name} is {value}; a positive number is needed."
                )
        if self.max_sequences >= self.chunk_tokens:
            raise BadSetting(
                f"Profile {self.model} on {self.accelerator}: max_sequences {self.max_sequences} leaves no room for"
                f" prefill in chunk_tokens {self.chunk_tokens}; make the chunk larger."
            )

    def iteration_s(self, decoding: float, prefill_tokens: float, kv_tokens: float, admitted: float = 0.0) -> float:
        """Seconds of one iteration."""
        memory = self.alpha_s + self.gamma_s * kv_tokens
        arithmetic = self.delta_s * (decoding + prefill_tokens)
        return max(memory, arithmetic) + self.beta_s * decoding + self.request_s * admitted

    def holds(self, input_tokens: int, output_tokens: int) -> bool:
        """Whether one request fits into the KV cache at all."""
        return input_tokens + output_tokens <= self.kv_tokens


LLAMA_8B_H100 = Profile(
    model="Llama-3.1-8B",
    accelerator="H100",
    alpha_s=7.0e-3,
    beta_s=0.015e-3,
    gamma_s=39e-9,
    delta_s=0.033e-3,
    request_s=8e-3,
    kv_tokens=400_000,
    max_sequences=256,
    chunk_tokens=2048,
)
"""bf16, one GPU a replica."""


def profile_to_json(profile: Profile) -> str:
    """The content of a profile file."""
    return json.dumps(asdict(profile), indent=2) + "\n"


def profile_from_json(text: str, name: str) -> Profile:
    """Read the content of a profile file; `name` is what messages call it.

    Raises:
        BadSetting: it is no profile; says which field is wrong.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSetting(f"Profile {name}: not JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise BadSetting(f"Profile {name}: an object with the fields of a profile is needed.")
    known = {field.name: field.type for field in fields(Profile)}
    if unknown := sorted(set(raw) - set(known)):
        raise BadSetting(f"Profile {name}: unknown field {unknown[0]!r}; allowed: {', '.join(known)}.")
    if missing := sorted(set(known) - {"gpus"} - set(raw)):
        raise BadSetting(f"Profile {name}: the field {missing[0]!r} is missing.")
    for key, value in raw.items():
        wanted: tuple[type, ...] = {"str": (str,), "int": (int,)}.get(str(known[key]), (int, float))
        if type(value) not in wanted:
            raise BadSetting(f"Profile {name}: {key} is {value!r}; a value of type {known[key]} is needed.")
    return Profile(**raw)
