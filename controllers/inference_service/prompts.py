"""Asks fixed prompts of two revisions, through a gateway, and hands the answers to the plan that compares them.

The first thing that a new revision is asked: its graphs, kernels and prefix cache are warm before it gets a session.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from controllers.inference_service.admin_ports import AdminPorts
from controllers.plans.canary.outputs import Answer, Asked, OutputFinding, compare_outputs
from controllers.plans.canary.values import Pair
from controllers.runtime.interface import Key
from crds.rollout import OutputCheck

_WARM_UP: Final = "Hello."


async def ask_prompts(
    ports: AdminPorts, gateway: str, key: Key, pair: Pair, check: OutputCheck | None
) -> OutputFinding | None:
    """What the prompts showed; None when somebody did not answer, and it has to be tried again."""
    if check is None:
        warm = await _ask(ports, gateway, key, pair.candidate, _WARM_UP, 1)
        return None if warm is None else OutputFinding(True, "It answered; no prompts are given to compare.")
    asked = []
    for prompt in check.prompts:
        one = await _ask_both(ports, gateway, key, pair, prompt, check.max_tokens)
        if one is None:
            return None
        asked.append(one)
    return compare_outputs(asked, check)


async def _ask_both(
    ports: AdminPorts, gateway: str, key: Key, pair: Pair, prompt: str, max_tokens: int
) -> Asked | None:
    who = (pair.stable, pair.stable, pair.candidate)
    answers = await asyncio.gather(*(_ask(ports, gateway, key, one, prompt, max_tokens) for one in who))
    stable, again, candidate = answers
    return None if stable is None or again is None or candidate is None else Asked(stable, again, candidate)


async def _ask(ports: AdminPorts, gateway: str, key: Key, revision: str, prompt: str, max_tokens: int) -> Answer | None:
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": 1}
    said = await ports.ask_revision(gateway, key.namespace or "", key.name, revision, body)
    return None if said is None else answer_in(said)


def answer_in(said: dict[str, Any]) -> Answer | None:
    """Of a completion; None when it is none."""
    try:
        logprobs = said["choices"][0]["logprobs"]
        tokens, chosen = logprobs["tokens"], logprobs["token_logprobs"]
        answer = Answer(tuple(map(str, tokens)), tuple(map(float, chosen)))
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return answer if len(answer.tokens) == len(answer.logprobs) else None
