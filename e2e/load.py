"""Steady load of chat requests from a thread of its own, with an account of each: the judge of every scenario.

Requests go on while the scenario breaks things; a request that got anything but a complete answer is a failure, and
nothing is ever retried here.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass
from statistics import median
from types import TracebackType
from typing import Self

import aiohttp

PROMPT = "Name a colour."


@dataclass(frozen=True)
class Sent:
    """One request: when it began (monotonic seconds), how long it took, and what was wrong with it, if anything."""

    at_s: float
    took_s: float
    trouble: str | None
    revision: str | None = None
    first_s: float | None = None
    """From its beginning to the first event of a stream, which brings the first token."""


@dataclass(frozen=True)
class Account:
    """Sums over the requests of a load."""

    sent: tuple[Sent, ...]

    @property
    def troubles(self) -> Counter[str]:
        return Counter(one.trouble for one in self.sent if one.trouble)

    @property
    def answered(self) -> int:
        return sum(one.trouble is None for one in self.sent)

    def within(self, first_s: float) -> float:
        """Share of the requests whose first token came in that time; one that failed is none of them."""
        good = sum(one.trouble is None and one.first_s is not None and one.first_s <= first_s for one in self.sent)
        return good / len(self.sent) if self.sent else 0.0

    @property
    def revisions(self) -> list[str]:
        """Revisions that answered, in the order of their first answer."""
        seen = {one.revision: None for one in sorted(self.sent, key=lambda s: s.at_s) if one.revision}
        return list(seen)

    def __str__(self) -> str:
        if not self.sent:
            return "no request"
        times = sorted(one.took_s for one in self.sent)
        failed = len(self.sent) - self.answered
        return f"{self.answered} answered, {failed} failed, median {median(times):.2f} s, slowest {times[-1]:.2f} s"


class Load:
    """A context manager: requests from `clients` clients, each one after the other, until the block ends."""

    def __init__(
        self, url: str, key: str, model: str, *, clients: int = 3, stream: bool = False, max_tokens: int = 6
    ) -> None:
        self._url, self._key, self._model = url, key, model
        self._clients, self._stream, self._max_tokens = clients, stream, max_tokens
        self._sent: list[Sent] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join(timeout=120)

    @property
    def answered(self) -> int:
        return self.account().answered

    def account(self) -> Account:
        return Account(tuple(self._sent))

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=90)
        headers = {"Authorization": f"Bearer {self._key}"}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            await asyncio.gather(*(self._client(session) for _ in range(self._clients)))

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self._ending.is_set():
            started = time.monotonic()
            trouble, revision, first_at_s = await self._one(session)
            first_s = None if first_at_s is None else first_at_s - started
            self._sent.append(Sent(started, time.monotonic() - started, trouble, revision, first_s))
            # A refused request must not turn the load into a flood.
            await asyncio.sleep(0.05 if trouble is None else 0.5)

    async def _one(self, session: aiohttp.ClientSession) -> tuple[str | None, str | None, float | None]:
        """What was wrong with the answer, which revision gave it, and when a stream's first event came."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": self._max_tokens,
            "temperature": 0,
            "stream": self._stream,
        }
        # Each request is a conversation of its own, or all of them would belong to one revision.
        own = {"x-foretide-session": f"load-{len(self._sent)}-{time.monotonic_ns()}"}
        try:
            async with session.post(f"{self._url}/chat/completions", json=body, headers=own) as answer:
                first = await answer.content.readany()
                first_at_s = time.monotonic() if self._stream and answer.status == 200 else None
                text = (first + await answer.content.read()).decode()
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"{type(error).__name__}: {error}", None, None
        revision = answer.headers.get("x-foretide-revision")
        if answer.status != 200:
            return f"{answer.status}: {text[:300]}", revision, None
        whole = text.rstrip().endswith("data: [DONE]") and '"error"' not in text if self._stream else "choices" in text
        return (None if whole else f"incomplete: {text[-300:]}"), revision, first_at_s
