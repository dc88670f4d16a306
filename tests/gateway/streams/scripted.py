"""Workers that write a journal, and can be told to lose a stream in every way there is.

What a token says follows from the ticket and its place alone, as with a real engine: any worker goes on as any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from tests.gateway.harness import Exchange, FakeWorker, Got

FINGERPRINT = "abc0"
ASK: Any = {"model": "chat", "messages": [], "stream": True}
N_TOKENS = 20


@dataclass
class Tale:
    """One exchange, understood: where it begins, and what it should say."""

    exchange: Exchange
    seed: int
    n_said: int

    @property
    def continues(self) -> bool:
        return "x-foretide-continue" in self.exchange.asked.headers

    def token(self, at: int) -> int:
        return (self.seed + at) % 1000

    def unit(self, at: int) -> bytes:
        choice = {"index": 0, "delta": {"content": f"{self.token(at)} "}, "finish_reason": None}
        return b"data: %b\n\n:%d\n\n" % (orjson.dumps({"id": "c", "choices": [choice]}), self.token(at))

    async def begin(self, fingerprint: str = FINGERPRINT) -> None:
        await self.exchange.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-foretide-stream: %b\r\n"
            b"x-foretide-prompt-tokens: 7\r\ntransfer-encoding: chunked\r\n\r\n" % fingerprint.encode()
        )

    async def say(self, start: int, end: int, pause_s: float = 0.0) -> None:
        for at in range(start, end):
            await self.exchange.chunk(self.unit(at))
            await asyncio.sleep(pause_s)

    async def end(self) -> None:
        await self.exchange.chunk(b"data: [DONE]\n\n:.\n\n")
        await self.exchange.send(b"0\r\n\r\n")


def tale_of(exchange: Exchange) -> Tale:
    headers, body = exchange.asked.headers, exchange.asked.body
    seed = int(headers["x-foretide-stream"].split()[0])
    tale = Tale(exchange, seed, 0)
    if tale.continues:
        fingerprint, size = headers["x-foretide-continue"].split()
        assert fingerprint == FINGERPRINT
        assert orjson.loads(body[: int(size)]) == ASK, "the original body comes first"
        said = [int(line) for line in body[int(size) :].split()]
        assert said == [tale.token(at) for at in range(len(said))], "the journal is what was said"
        tale.n_said = len(said)
    return tale


async def tells(exchange: Exchange) -> None:
    """The whole of it, or the rest."""
    tale = tale_of(exchange)
    await tale.begin()
    await tells_on(tale)


async def tells_on(tale: Tale) -> None:
    await tale.say(tale.n_said, N_TOKENS, 0.001)
    await tale.end()


Loss = Callable[[Tale], Awaitable[None]]


def loses(loss: Loss, after: int = 5) -> Callable[[Exchange], Awaitable[None]]:
    """Says a few tokens more than it was given, and then is lost in some way."""

    async def behaviour(exchange: Exchange) -> None:
        tale = tale_of(exchange)
        await tale.begin()
        if after and tale.n_said >= N_TOKENS - after:
            await tells_on(tale)
            return
        await tale.say(tale.n_said, tale.n_said + after, 0.001)
        await loss(tale)

    return behaviour


def assert_whole(got: Got, n_tokens: int = N_TOKENS) -> None:
    """Every token once and in order, and nothing of the journal."""
    assert got.status == 200
    *events, done, rest = got.body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b""), got.body[-300:]
    texts = [orjson.loads(event.removeprefix(b"data: "))["choices"][0]["delta"]["content"] for event in events]
    tokens = [int(text) for text in texts]
    assert len(tokens) == n_tokens
    assert [(token - tokens[0]) % 1000 for token in tokens] == list(range(n_tokens))


def two(*first: Callable[[Exchange], Awaitable[None]]) -> tuple[FakeWorker, FakeWorker]:
    """Workers of one revision; the first behaves as told, the second tells all."""
    return FakeWorker(*first, name="chat-r1-1-a"), FakeWorker(tells, name="chat-r1-1-b")
