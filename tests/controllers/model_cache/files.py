"""Small real weights, and a loopback web server that behaves as badly as a test asks for."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


def gguf(size_bytes: int = 300_000, seed: int = 1) -> bytes:
    """A file with a right header and any content."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 1)
    return head + random.Random(seed).randbytes(size_bytes - len(head))


def safetensors(names: tuple[str, ...] = ("a", "b"), each_bytes: int = 64) -> bytes:
    header = {
        name: {"dtype": "U8", "shape": [each_bytes], "data_offsets": [i * each_bytes, (i + 1) * each_bytes]}
        for i, name in enumerate(names)
    }
    raw = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes(each_bytes * len(names))


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class WebServer:
    """Serves `content` at every path. The other fields make it misbehave."""

    content: bytes = b""
    etag: str | None = '"v1"'
    ignores_range: bool = False
    continues_at: int | None = None
    """Where the answer to a Range that continues begins, whatever was asked."""
    cut_after_bytes: list[int] = field(default_factory=list)
    """The next full answers end after so many bytes, with the connection cut."""
    promise_bytes: int | None = None
    """What the first look is told as the size."""
    redirect_to: str | None = None
    status: int = 200
    hold: asyncio.Event | None = None
    """Bytes after the first half wait for this."""
    ranges: list[str | None] = field(default_factory=list)
    """Range header of each request."""
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.ranges.append(request.headers.get("Range"))
        if self.status != 200:
            return web.Response(status=self.status)
        if self.redirect_to is not None:
            return web.Response(status=302, headers={"Location": self.redirect_to})
        start, end, status = 0, len(self.content), 200
        asked = request.headers.get("Range")
        if asked and not self.ignores_range and request.headers.get("If-Range", self.etag) == self.etag:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end, status = int(first), int(last) + 1 if last else end, 206
            if self.continues_at is not None and not last:
                start = self.continues_at
        return await self._send(request, start, end, status)

    async def _send(self, request: web.Request, start: int, end: int, status: int) -> web.StreamResponse:
        probe = (start, end) == (0, 1)
        total = self.promise_bytes if probe and self.promise_bytes is not None else len(self.content)
        headers = {"Content-Length": str(end - start)}
        if self.etag:
            headers["ETag"] = self.etag
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{total}"
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        body = self.content[start:end]
        if not probe and self.cut_after_bytes:
            await response.write(body[: self.cut_after_bytes.pop(0)])
            assert request.transport is not None
            request.transport.close()
            return response
        half = len(body) // 2 if self.hold and not probe else len(body)
        try:
            await response.write(body[:half])
            if self.hold and not probe:
                await self.hold.wait()
            await response.write(body[half:])
        except ConnectionError:
            return response  # A client that only wanted to look hangs up.
        return response


@asynccontextmanager
async def serving(server: WebServer) -> AsyncIterator[WebServer]:
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
