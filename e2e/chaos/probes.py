"""Clients that never rest: of each service a request five times a second, and one stream after another.

Requests are sent by the clock, not after each other, so a worker that hangs does not stop them. A stream is compared
with what the same prompt came to when nobody was disturbed. Nothing is ever retried here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from e2e.chaos.outcomes import CHANGED, Asked

EVERY_S: Final = 0.2
TOKENS: Final = 4
STREAM_TOKENS: Final = 100
TIMEOUT_S: Final = 60.0
TRIES: Final = 10
"""Of the stream that all others are compared with: the gateways may be learning of the service."""
MOST_OPEN: Final = 200
"""Of one service; beyond it a request is not sent but counted as failed, so that a dead service costs no memory."""


class Probe:
    """The clients of one service. `begin` learns what its stream should say; `run` until cancelled."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str, service: str) -> None:
        self.service = service
        self.asked: list[Asked] = []
        self._session, self._url, self._service = session, url, service
        self._headers = {"Authorization": f"Bearer {key}"}
        self._expected = ""
        self._open: set[asyncio.Task[None]] = set()
        self._number = 0

    async def begin(self) -> None:
        """Raises AssertionError when the undisturbed stream breaks again and again."""
        for _ in range(TRIES):
            self._expected, trouble = await self._read_stream()
            if trouble is None:
                break
            await asyncio.sleep(1.0)
        assert trouble is None, f"the undisturbed stream of {self._service} broke: {trouble}"
        assert self._expected, f"the undisturbed stream of {self._service} said nothing"

    async def run(self) -> None:
        streams = asyncio.create_task(self._streams())
        due_s = time.monotonic()
        try:
            while True:
                self._send()
                due_s = max(due_s + EVERY_S, time.monotonic())
                await asyncio.sleep(due_s - time.monotonic())
        finally:
            for task in (streams, *self._open):
                task.cancel()
            await asyncio.gather(streams, *self._open, return_exceptions=True)

    def take(self, until_s: float) -> list[Asked]:
        """What ended so far and was sent before a time, each once: later calls do not see it again."""
        taken = [one for one in self.asked if one.sent_s < until_s]
        self.asked = [one for one in self.asked if one.sent_s >= until_s]
        return taken

    @property
    def open(self) -> int:
        """Requests that are out."""
        return len(self._open)

    def _send(self) -> None:
        if len(self._open) >= MOST_OPEN:
            now_s = time.monotonic()
            self.asked.append(Asked(now_s, now_s, f"{MOST_OPEN} requests are out already"))
            return
        task = asyncio.create_task(self._one())
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _one(self) -> None:
        sent_s = time.monotonic()
        trouble = None
        try:
            async with self._post(stream=False) as answer:
                text = await answer.text()
                if answer.status != 200 or '"choices"' not in text:
                    trouble = f"{answer.status}: {text[:200]}"
        except (aiohttp.ClientError, TimeoutError) as error:
            trouble = f"{type(error).__name__}: {error}"
        self.asked.append(Asked(sent_s, time.monotonic(), trouble))

    async def _streams(self) -> None:
        while True:
            sent_s = time.monotonic()
            text, trouble = await self._read_stream()
            if trouble is None and text != self._expected:
                trouble = f"{CHANGED}: {_difference(self._expected, text)}"
            self.asked.append(Asked(sent_s, time.monotonic(), trouble, stream=True))
            await asyncio.sleep(0.1 if trouble is None else 0.5)

    async def _read_stream(self) -> tuple[str, str | None]:
        text, done = "", False
        try:
            async with self._post(stream=True) as answer:
                if answer.status != 200:
                    return "", f"{answer.status}: {(await answer.text())[:200]}"
                async for raw in answer.content:
                    line = raw.decode().strip()
                    if line == "data: [DONE]":
                        done = True
                    elif line.startswith("data: "):
                        event = json.loads(line[6:])
                        if "error" in event:
                            return text, str(event["error"])[:200]
                        text += "".join(choice.get("text") or "" for choice in event.get("choices", ()))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return text, f"{type(error).__name__}: {error}"
        return text, None if done else "ended without [DONE]"

    def _post(self, *, stream: bool) -> Any:
        self._number += 1
        body = {
            "model": self._service,
            "prompt": f"Say after me, {self._service}: one, two" if stream else f"{self._number % 97} and",
            "max_tokens": STREAM_TOKENS if stream else TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "stream": stream,
        }
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        return self._session.post(f"{self._url}/completions", json=body, headers=self._headers, timeout=timeout)


def _difference(expected: str, text: str) -> str:
    """Where two texts part."""
    at = next(
        (i for i, (a, b) in enumerate(zip(expected, text, strict=False)) if a != b), min(len(expected), len(text))
    )
    return f"at {at} of {len(expected)}: {expected[at : at + 20]!r} became {text[at : at + 20]!r}"


async def settled(probes: Sequence[Probe], within_s: float) -> None:
    """Until every request that was out has ended, or the time is over: what is sent meanwhile does not count."""
    out = {task for probe in probes for task in probe._open}
    if out:
        await asyncio.wait(out, timeout=within_s)
