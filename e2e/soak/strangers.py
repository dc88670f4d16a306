"""Clients that misbehave, beside those that only ask: they hang up, send nonsense, use wrong keys, ask for too much.

Each does the next thing of a list, for ever. What they get is counted by what it should be: a clear refusal, or an
answer of which they read a part.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import aiohttp

TIMEOUT_S = 60.0


class Stranger:
    """One of them; `run` until cancelled. `unexpected` are answers that nobody should get, with how many."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str, service: str) -> None:
        self.done: Counter[str] = Counter()
        self.unexpected: Counter[str] = Counter()
        self._session, self._url, self._key, self._service = session, url, key, service

    async def run(self) -> None:
        steps = (self._hangs_up, self._nonsense, self._wrong_key, self._no_model, self._too_long, self._several)
        for step in itertools.cycle(steps):
            try:
                await step()
            except (aiohttp.ClientError, TimeoutError) as error:
                self.unexpected[f"{step.__name__.strip('_')}: {type(error).__name__}: {error}"] += 1
            self.done[step.__name__.strip("_")] += 1
            await asyncio.sleep(0.2)

    async def _hangs_up(self) -> None:
        async with self._post(self._body(max_tokens=100, stream=True)) as answer:
            await answer.content.readany()

    async def _nonsense(self) -> None:
        async with self._session.post(f"{self._url}/completions", data=b"{", headers=self._headers()) as answer:
            await self._expect(answer, 400)

    async def _wrong_key(self) -> None:
        headers = {"Authorization": "Bearer not-a-key"}
        async with self._session.post(f"{self._url}/completions", json=self._body(), headers=headers) as answer:
            await self._expect(answer, 401)

    async def _no_model(self) -> None:
        async with self._post(self._body(model="no-such-model")) as answer:
            await self._expect(answer, 404)

    async def _too_long(self) -> None:
        async with self._post(self._body(prompt="word " * 5000)) as answer:
            await self._expect(answer, 400)

    async def _several(self) -> None:
        async with self._post(self._body(prompt="three of them", n=3, logprobs=2, temperature=1.0)) as answer:
            await self._expect(answer, 200)

    async def _expect(self, answer: aiohttp.ClientResponse, status: int) -> None:
        text = await answer.text()
        if answer.status != status:
            self.unexpected[f"{answer.status} instead of {status}: {text[:200]}"] += 1

    def _body(self, **changes: Any) -> dict[str, Any]:
        return {"model": self._service, "prompt": "one", "max_tokens": 4} | changes

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}

    def _post(self, body: dict[str, Any]) -> Any:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        return self._session.post(f"{self._url}/completions", json=body, headers=self._headers(), timeout=timeout)
