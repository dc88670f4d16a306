"""The server's end of the engine: starts the process, sends requests, spreads its tokens to those who wait.

Imports no torch. When the engine process ends, every open stream raises EngineError, and `gone` resolves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Final

from worker_image.engine.messages import (
    HEADER,
    Add,
    Cancel,
    EngineLoad,
    EngineSettings,
    Failed,
    Message,
    Progress,
    Ready,
    Sampling,
    Start,
    StepDone,
    TokenOut,
    decode,
    encode,
)
from worker_image.errors import CheckpointError, EngineError

STOP_GRACE_S: Final = 5.0
HUGE_PAGES: Final = "glibc.malloc.hugetlb=1"
"""Weights in huge pages: a step reads all of them, and takes 15 % less time without the small pages' TLB misses."""


class TokenStream:
    """One request's tokens as the engine makes them. Leaving the `async with` early cancels the work."""

    def __init__(self, client: EngineClient, request_id: int) -> None:
        self._client = client
        self.request_id = request_id
        self._queue: asyncio.Queue[TokenOut | EngineError] = asyncio.Queue()
        self._finished = False

    def put(self, item: TokenOut | EngineError) -> None:
        self._queue.put_nowait(item)

    async def __aenter__(self) -> TokenStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.close(self.request_id, finished=self._finished)

    async def __aiter__(self) -> AsyncIterator[list[TokenOut]]:
        """Lists of all the tokens that are there, so a slow reader catches up in one go. Raises EngineError."""
        while not self._finished:
            items = [await self._queue.get()]
            while not self._queue.empty():
                items.append(self._queue.get_nowait())
            tokens = []
            for item in items:
                if isinstance(item, EngineError):
                    self._finished = True
                    raise item
                tokens.append(item)
            self._finished = tokens[-1].finish is not None
            yield tokens


class EngineClient:
    """Construct with `start`. One event loop uses it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._process = process
        self._reader, self._writer = reader, writer
        self._on_progress = on_progress
        self._streams: dict[int, TokenStream] = {}
        self._ids = count(1)
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self.load = EngineLoad(steps=0, running=0, waiting=0, kv_usage=0.0, preemptions=0)
        self.last_progress_at = time.monotonic()
        """When the engine last sent anything, or was last given work while idle."""
        self.gone = asyncio.create_task(self._receive(), name="engine-receive")
        """Done when the engine process has ended."""

    @classmethod
    async def start(cls, settings: EngineSettings, on_progress: Callable[[Progress], None]) -> EngineClient:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "worker_image.engine.process", str(theirs.fileno()),
                pass_fds=[theirs.fileno()], env={"GLIBC_TUNABLES": HUGE_PAGES} | os.environ,
            )  # fmt: skip
        reader, writer = await asyncio.open_connection(sock=ours)
        client = cls(process, reader, writer, on_progress)
        client._send(Start(settings))
        return client

    async def wait_ready(self) -> Ready:
        """Raises CheckpointError with the engine's own sentence, or EngineError where it ended without one."""
        return await asyncio.shield(self._ready)

    @property
    def n_open(self) -> int:
        return len(self._streams)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stalled_for_s(self, now: float) -> float:
        """How long the engine has owed an answer without making progress; 0 while nothing is asked of it."""
        owes = bool(self._streams) or not self._ready.done()
        return now - self.last_progress_at if owes else 0.0

    def submit(self, prompt: list[int], sampling: Sampling) -> TokenStream:
        """Raises EngineError where the engine is gone."""
        if self.gone.done():
            raise EngineError("the engine process has ended; this worker is being restarted.")
        if not self._streams:
            self.last_progress_at = time.monotonic()
        stream = TokenStream(self, next(self._ids))
        self._streams[stream.request_id] = stream
        self._send(Add(stream.request_id, prompt, sampling))
        return stream

    def close(self, request_id: int, *, finished: bool) -> None:
        if self._streams.pop(request_id, None) is not None and not finished and not self.gone.done():
            self._send(Cancel(request_id))

    def _send(self, message: Message) -> None:
        self._writer.write(encode(message))

    async def _receive(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                (length,) = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                self._take(decode(await self._reader.readexactly(length)))
        code = await self._process.wait()
        error = EngineError(f"the engine process ended with code {code}; this worker is being restarted.")
        if not self._ready.done():
            self._ready.set_exception(error)
        for stream in self._streams.values():
            stream.put(error)

    def _take(self, message: Message) -> None:
        self.last_progress_at = time.monotonic()
        match message:
            case Progress():
                self._on_progress(message)
            case Ready():
                self._ready.set_result(message)
            case Failed(sentence):
                self._ready.set_exception(CheckpointError(sentence))
            case StepDone(load, tokens):
                self.load = load
                for token in tokens:
                    # A cancelled request may have been in the step that was running.
                    if (stream := self._streams.get(token.request_id)) is not None:
                        stream.put(token)

    async def stop(self) -> None:
        """Closes the socket, at which the engine ends; kills it if it does not. Safe to call twice."""
        self._writer.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_GRACE_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await asyncio.wait([self.gone])
