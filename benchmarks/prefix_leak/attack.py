"""The attack: the victim asks something, the attacker asks for the same beginning or for another, and takes the time.

What is guessed is new each time, so that the attacker's own probes help nobody. Which of the two it is, chance decides.
"""

from __future__ import annotations

import random
import string
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.prefix_leak.stage import ATTACKER, VICTIM

PROMPT_CHARS = 1024
"""The model has a token for each."""
PROPERTIES = 60

Ask = Callable[[str, str], dict[str, Any]]
"""The body of a request with a secret, and a question of one's own."""


@dataclass
class Times:
    """Seconds to the first token of the attacker's probes."""

    warmed_s: list[float] = field(default_factory=list)
    others_s: list[float] = field(default_factory=list)


def with_prompt(secret: str, question: str) -> dict[str, Any]:
    text = (secret * (PROMPT_CHARS // len(secret) + 1))[:PROMPT_CHARS]
    return {"prompt": text + question}


def with_schema(secret: str, question: str) -> dict[str, Any]:
    named = {
        f"{secret}_{number}": {"type": "string", "pattern": f"{secret}[a-z]{{{number}}}"}
        for number in range(PROPERTIES)
    }
    schema = {"type": "object", "properties": named, "required": [*named]}
    format = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return {"prompt": question, "response_format": format}


async def attack(url: str, ask: Ask, n_probes: int, rng: random.Random) -> Times:
    times = Times()
    async with aiohttp.ClientSession() as session:
        for _ in range(n_probes):
            secret, other = _secret(rng), _secret(rng)
            await first_token_s(session, url, VICTIM, ask(secret, " What is that?"))
            warmed = rng.random() < 0.5
            took_s = await first_token_s(session, url, ATTACKER, ask(secret if warmed else other, " Who asked?"))
            (times.warmed_s if warmed else times.others_s).append(took_s)
    return times


def _secret(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase, k=32))


async def first_token_s(session: aiohttp.ClientSession, url: str, key: str, body: dict[str, Any]) -> float:
    body = {"model": "chat", "max_tokens": 1, "stream": True, "temperature": 0, **body}
    began_s = time.perf_counter()
    async with session.post(f"{url}/v1/completions", json=body, headers={"authorization": f"Bearer {key}"}) as answer:
        if answer.status != 200:
            raise RuntimeError(f"a probe was answered with {answer.status}: {await answer.text()}")
        await answer.content.readany()
        took_s = time.perf_counter() - began_s
        await answer.read()
    return took_s
