"""CPU of the gateway for one streamed chunk, with and without a journal, before a worker that costs next to nothing."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import aiohttp

from benchmarks.failover.fleet import KEY, Gateway, gateway

N_STREAMS = 64
N_CHUNKS = 400
PAUSE_S = 0.02
_TEXT = (
    b'data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"bench","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}\n\n'
)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%btransfer-encoding: chunked\r\n\r\n"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: 404 to questions about load; streams, with a journal where one is asked for."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if head.startswith(b"get"):
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                continue
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
            journalled = b"x-foretide-stream" in head
            writer.write(_HEAD % (b"x-foretide-stream: ab\r\n" if journalled else b""))
            unit = _TEXT + b":12345\n\n" if journalled else _TEXT
            last = b"data: [DONE]\n\n" + (b":.\n\n" if journalled else b"")
            for data in [unit] * N_CHUNKS + [last]:
                writer.write(b"%x\r\n%b\r\n" % (len(data), data))
                await asyncio.sleep(PAUSE_S)
            writer.write(b"0\r\n\r\n")
    writer.close()


async def chunk_costs(out: Path) -> dict[str, float]:
    """µs of CPU per chunk; the smaller of two runs each."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1]]
    costs: dict[str, list[float]] = {"with": [], "without": []}
    async with server:
        for _ in range(2):
            for name, flags in (("with", ()), ("without", ("--journal-mib", "0"))):
                async with gateway(ports, out, "--access-log", "0", *flags) as running:
                    costs[name].append(await _cost_us(running))
    return {name: min(found) for name, found in costs.items()}


async def _cost_us(running: Gateway) -> float:
    body = {"model": "bench", "messages": [], "stream": True}

    async def one(session: aiohttp.ClientSession) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with session.post(running.url + "/v1/chat/completions", json=body, headers=headers) as answer:
            assert answer.status == 200
            assert (await answer.read()).count(b"data:") == N_CHUNKS + 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        before_s = _cpu_s(running.pid)
        await asyncio.gather(*(one(session) for _ in range(N_STREAMS)))
        return (_cpu_s(running.pid) - before_s) * 1e6 / (N_STREAMS * N_CHUNKS)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
