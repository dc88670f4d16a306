"""Clients that read streams, a hand that kills and hangs workers meanwhile, the comparison with undisturbed twins."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from benchmarks.failover.fleet import KEY, Workers

N_BODIES = 40
N_TOKENS = 60
_LOAD = "/load"


@dataclass(frozen=True)
class Plan:
    """What one round does; the same seed does the same."""

    seed: int
    kills: int
    hangs: int
    clients: int = 16
    kill_every_s: float = 0.35
    hang_every_s: float = 2.5
    hung_for_s: float = 2.0
    """Then the worker is killed and comes back, as its liveness probe would have it."""


@dataclass
class Outcome:
    kills: int = 0
    stops: int = 0
    """Hangs by SIGSTOP."""
    stuck: int = 0
    """Hangs of the engine behind a server that answers."""
    whole: int = 0
    """Streams that were what their twin was, to the last token."""
    broken: int = 0
    """Ended early, or with an error."""
    changed: int = 0
    """Ended, and were something else: a token lost, repeated, changed, or of another stream."""
    refused: int = 0
    """Never began."""
    pauses_s: list[float] = field(default_factory=list)
    """The longest of each stream, as its client saw it."""


def bodies(seed: int = 0) -> list[dict[str, Any]]:
    """What is asked for: chat and completions, several choices and prompts, log probabilities, stop strings, usage."""
    rng = random.Random(seed)
    kinds: list[dict[str, Any]] = [
        {}, {"n": 3}, {"logprobs": True, "top_logprobs": 2}, {"stop": ["1 w", "zz"]}, {"temperature": 0.7, "n": 2},
        {"prompt": ["one", "two"]}, {"prompt": "w1 w2 w3", "logprobs": 1}, {"prompt": "w9", "stop": ["e w2"]},
    ]  # fmt: skip
    made = []
    for number in range(N_BODIES):
        body = {"model": "bench", "max_tokens": N_TOKENS, "seed": rng.randrange(1 << 40), "ignore_eos": True}
        body |= {"stream": True, "stream_options": {"include_usage": True}} | kinds[number % len(kinds)]
        if "prompt" not in body:
            body["messages"] = [{"role": "user", "content": f"w{number:x} w{rng.randrange(999):x}"}]
        made.append(body)
    return made


async def read(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any]
) -> tuple[dict[str, Any] | None, float, bool]:
    """What the stream came to (None: it broke), the longest pause in it, and whether it began."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    said: dict[str, Any] = {}
    pause_s, last_s, begun, done = 0.0, None, False, False
    try:
        async with session.post(url + path, json=body, headers={"Authorization": f"Bearer {KEY}"}) as answer:
            begun = answer.status == 200
            async for line in answer.content:
                assert not line.startswith(b":"), "the journal is nobody's business"
                if not line.startswith(b"data: "):
                    continue
                now_s = time.monotonic()
                pause_s, last_s = max(pause_s, 0.0 if last_s is None else now_s - last_s), now_s
                if line == b"data: [DONE]\n":
                    done = True
                elif not _add(said, orjson.loads(line[6:])):
                    return None, pause_s, begun
    except (aiohttp.ClientError, orjson.JSONDecodeError):
        done = False
    return (said if done else None), pause_s, begun


def _add(said: dict[str, Any], event: Any) -> bool:
    """False for an error."""
    if "error" in event:
        return False
    if event.get("usage"):
        said["usage"] = {name: event["usage"][name] for name in ("prompt_tokens", "completion_tokens")}
    for choice in event["choices"]:
        own = said.setdefault(str(choice["index"]), {"text": "", "logprobs": [], "finish": []})
        own["text"] += choice.get("text") or choice.get("delta", {}).get("content") or ""
        own["finish"] += [choice["finish_reason"]] if choice["finish_reason"] else []
        logprobs = choice["logprobs"] or {}
        own["logprobs"] += logprobs.get("content") or logprobs.get("text_offset") or []
    return True


async def twins(url: str) -> list[dict[str, Any]]:
    """What each body comes to when nobody is disturbed."""
    async with aiohttp.ClientSession() as session:
        found = await asyncio.gather(*(read(session, url, body) for body in bodies()))
    said = [one for one, _, _ in found if one is not None]
    assert len(said) == N_BODIES, "an undisturbed stream broke"
    return said


async def run(plan: Plan, url: str, fleet: Workers, expected: list[dict[str, Any]]) -> Outcome:
    """Streams at `url` until all of the plan's kills and hangs are through."""
    outcome, over = Outcome(), asyncio.Event()
    busy: set[int] = set()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        clients = [
            asyncio.create_task(
                _client(session, url, expected, outcome, over, random.Random(plan.seed * 1000 + number))
            )
            for number in range(plan.clients)
        ]
        hand = _Hand(session, fleet, busy, random.Random(plan.seed))
        await asyncio.gather(_kill(plan, hand, outcome), _hang(plan, hand, outcome))
        over.set()
        await asyncio.gather(*clients)
    return outcome


async def _client(
    session: aiohttp.ClientSession, url: str, expected: list[dict[str, Any]], outcome: Outcome, over: asyncio.Event,
    rng: random.Random,
) -> None:  # fmt: skip
    asked = bodies()
    while not over.is_set():
        number = rng.randrange(N_BODIES)
        said, pause_s, begun = await read(session, url, asked[number])
        if not begun:
            outcome.refused += 1
        elif said is None:
            outcome.broken += 1
        else:
            outcome.whole += said == expected[number]
            outcome.changed += said != expected[number]
            outcome.pauses_s.append(pause_s)


class _Hand:
    """Chooses a worker that is in the middle of streams, and leaves half of the fleet alone."""

    def __init__(self, session: aiohttp.ClientSession, fleet: Workers, busy: set[int], rng: random.Random) -> None:
        self.fleet = fleet
        self.rng = rng
        self.busy = busy
        """Those that are being disturbed."""
        self._session = session

    async def take(self) -> int:
        while True:
            ports = [port for port in self.fleet.ports if port not in self.busy]
            if len(ports) > len(self.fleet.ports) // 2:
                port = self.rng.choice(ports)
                self.busy.add(port)
                if await self._holds_streams(port):
                    return port
                self.busy.discard(port)
            await asyncio.sleep(0.02)

    async def _holds_streams(self, port: int) -> bool:
        try:
            async with self._session.get(f"http://127.0.0.1:{port}{_LOAD}", timeout=aiohttp.ClientTimeout(2)) as load:
                return bool((await load.json())["running"] > 0)
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def back(self, port: int) -> None:
        await self.fleet.restart(port)
        await asyncio.sleep(0.15)
        self.busy.discard(port)


async def _kill(plan: Plan, hand: _Hand, outcome: Outcome) -> None:
    for _ in range(plan.kills):
        await asyncio.sleep(plan.kill_every_s * hand.rng.uniform(0.5, 1.5))
        port = await hand.take()
        outcome.kills += 1
        await hand.back(port)


async def _hang(plan: Plan, hand: _Hand, outcome: Outcome) -> None:
    for number in range(plan.hangs):
        await asyncio.sleep(max(plan.hang_every_s - plan.hung_for_s, 0.1) * hand.rng.uniform(0.5, 1.5))
        port = await hand.take()
        if number % 2:
            hand.fleet.signal(port, signal.SIGSTOP)
            outcome.stops += 1
        else:
            hand.fleet.signal(port, signal.SIGUSR1)
            outcome.stuck += 1
        await asyncio.sleep(plan.hung_for_s)
        await hand.back(port)
