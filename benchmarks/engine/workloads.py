"""The workloads: which requests arrive when, made from rules that lie in a folder of JSON files.

The token rule is implemented here and checked by a test; lengths and arrivals are read. Measures nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

FILES: Final = {
    "w1": "w1_nano.json",
    "w2": "w2_8b_offline.json",
    "w3": "w3_8b_latency.json",
    "w4": "w4_8b_online.json",
    "w5": "w5_prefix.json",
}


@dataclass(frozen=True, slots=True)
class Request:
    """`output_tokens` are generated whatever the model says; `at_s` counts from the workload's start."""

    prompt: list[int]
    output_tokens: int
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    model: str
    temperature: float
    requests: tuple[Request, ...]

    @property
    def prompt_tokens(self) -> int:
        return sum(len(request.prompt) for request in self.requests)

    @property
    def output_tokens(self) -> int:
        return sum(request.output_tokens for request in self.requests)


def splitmix64_tokens(seed: int, request: int, count: int, modulus: int) -> list[int]:
    """Token j of a request: the j-th output of splitmix64 (Steele et al., OOPSLA 2014) from a seed of its own."""
    start = np.uint64((seed * 2**40 + request * 2**20) % 2**64)
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) + start + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    tokens: list[int] = (z % np.uint64(modulus)).astype(np.int64).tolist()
    return tokens


class Rules:
    """The rule files of one folder. Every method takes `repeat`, which draws new prompts of the same lengths."""

    def __init__(self, folder: Path) -> None:
        """Raises SystemExit where a rule file is missing."""
        missing = [name for name in FILES.values() if not (folder / name).is_file()]
        if missing:
            raise SystemExit(f"{folder}: {', '.join(missing)} missing; --workloads names the folder of the rule files.")
        self.folder = folder
        self._rules: dict[str, dict[str, Any]] = {
            key: json.loads((folder / name).read_text(encoding="utf-8")) for key, name in FILES.items()
        }

    def model_folder(self, model: str) -> Path:
        """The folder of a shape's config.json."""
        return self.folder / "models" / model

    def model_of(self, key: str) -> str:
        name: str = self._rules[key]["model"]
        return name

    @property
    def batches(self) -> tuple[int, ...]:
        return tuple(self._rules["w3"]["batches"])

    @property
    def rates(self) -> tuple[str, ...]:
        """W4's rates in requests/s, in the order of the file."""
        return tuple(self._rules["w4"]["arrivals_s"])

    def nano(self, repeat: int) -> Workload:
        return self._listed("w1", repeat)

    def offline(self, repeat: int, count: int | None = None) -> Workload:
        return self._listed("w2", repeat, count)

    def latency(self, repeat: int, batch: int) -> Workload:
        rule = self._rules["w3"]
        requests = [self._request("w3", repeat, i, rule["prompt_len"], rule["output_len"]) for i in range(batch)]
        return self._workload(f"w3_batch{batch}", "w3", requests)

    def online(self, rate: str) -> Workload:
        rule, lengths = self._rules["w4"], self._rules["w2"]
        prompts, outputs = lengths["prompt_lens"], lengths["output_lens"]
        requests = [
            self._request("w4", self.rates.index(rate), i, prompts[i % len(prompts)], outputs[i % len(outputs)], at_s)
            for i, at_s in enumerate(rule["arrivals_s"][rate])
        ]
        return self._workload(f"w4_rate{rate}", "w4", requests)

    def prefix(self, repeat: int) -> Workload:
        rule = self._rules["w5"]
        modulus, seed = rule["token_mod"], rule["seed"] + repeat
        shared = splitmix64_tokens(seed, rule["prefix_request"], rule["prefix_len"], modulus)
        requests = [
            Request(shared + splitmix64_tokens(seed, i, rule["unique_len"], modulus), rule["output_len"])
            for i in range(rule["requests"])
        ]
        return self._workload("w5", "w5", requests)

    def _listed(self, key: str, repeat: int, count: int | None = None) -> Workload:
        rule = self._rules[key]
        pairs = list(zip(rule["prompt_lens"], rule["output_lens"], strict=True))[:count]
        requests = [self._request(key, repeat, i, *lengths) for i, lengths in enumerate(pairs)]
        return self._workload(key, key, requests)

    def _request(self, key: str, repeat: int, i: int, prompt_len: int, output_len: int, at_s: float = 0.0) -> Request:
        rule = self._rules[key]
        prompt = splitmix64_tokens(rule["seed"] + repeat, i, prompt_len, rule["token_mod"])
        return Request(prompt, output_len, at_s)

    def _workload(self, name: str, key: str, requests: list[Request]) -> Workload:
        rule = self._rules[key]
        return Workload(name, rule["model"], rule["temperature"], tuple(requests))
