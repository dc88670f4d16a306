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
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from worker_image.engine.messages import (
    HEADER,
    Add,
    Admitted,
    Cancel,
    EngineLoad,
    EngineSettings,
    Expect,
    Failed,
    Finish,
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
from worker_image.engine.standing import ORDINARY, Standing
from worker_image.errors import CheckpointError, EngineEnded, EngineError, RequestError, WorkerError

STOP_GRACE_S: Final = 5.0
READ_AHEAD_BYTES: Final = 16 << 20
"""Steps are taken off the socket even while clients are written to: an engine never waits for its server."""
HUGE_PAGES: Final = "glibc.malloc.hugetlb=1"
"""Weights in huge pages: a step reads all of them, and takes 15 % less time without the small pages' TLB misses."""


@dataclass(frozen=True)
class Work:
    """`sampling.n` choices of one prompt, of whose last tokens `n_generated` are the answer so far; then `n` is 1."""

    prompt: list[int]
    sampling: Sampling
    n_generated: int = 0


class TokenStream:
    """Tokens of one or more choices as the engine makes them. Leaving the `async with` early cancels the work."""

    def __init__(self, client: EngineClient, choice_ids: Sequence[int]) -> None:
        self.choice_ids = tuple(choice_ids)
        """`request_id` of the tokens: choices in their order, of one request after another."""
        self.admitted: dict[int, Admitted] = {}
        """By choice, once the engine has taken it up."""
        self._client = client
        self._open = set(choice_ids)
        self._tokens: list[TokenOut] = []
        self._error: WorkerError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, token: TokenOut) -> None:
        self._tokens.append(token)
        if token.finish is not None:
            self._open.discard(token.request_id)
        if (waiter := self._waiter) is not None:
            self._wake(waiter)

    def fail(self, error: WorkerError) -> None:
        self._error = error
        if (waiter := self._waiter) is not None:
            self._wake(waiter)

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        self._waiter = None
        if not waiter.done():
            waiter.set_result(None)

    def cancel(self, choice_id: int) -> None:
        """Ends one choice; nothing where it has ended already."""
        if choice_id in self._open:
            self._open.discard(choice_id)
            self._client.cancel(choice_id)

    async def __aenter__(self) -> TokenStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        for choice_id in tuple(self._open):
            self.cancel(choice_id)

    async def __aiter__(self) -> AsyncIterator[list[TokenOut]]:
        """Lists of all the tokens that are there, so a slow reader catches up in one go. Raises EngineError, or
        RequestError where the request's own grammar cannot be followed."""
        loop = asyncio.get_running_loop()
        while self._error is None:
            if self._tokens:
                tokens, self._tokens = self._tokens, []
                yield tokens
            elif self._open:
                self._waiter = loop.create_future()
                await self._waiter
            else:
                return
        raise self._error


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
        # Nobody waits for it any more where the server gives up before: then it is no news.
        self._ready.add_done_callback(lambda ready: ready.exception())
        self._watch: Callable[[EngineLoad, StepDone], None] = lambda before, step: None
        self.load = EngineLoad()
        self.n_measuring = 0
        """Of the open choices, those of the worker's own measurement: no client waits for them."""
        self.last_progress_at = time.monotonic()
        """When the engine last sent anything, or was last given work while idle."""
        self._unanswered = False
        """Whether something was sent that the engine has said nothing after; it does so after each message."""
        self.expected: Expect | None = None
        """What the engine said of what it does now; None for what is short."""
        self.busy_s = 0.0
        """All steps so far together."""
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
        reader, writer = await asyncio.open_connection(sock=ours, limit=READ_AHEAD_BYTES)
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
        """How long the engine has owed an answer without making progress; 0 while nothing is asked of it.

        A request that was taken back is owed a word, too: an engine that hangs must not look idle for it.
        """
        owes = self._unanswered or bool(self._streams) or not self._ready.done()
        return now - self.last_progress_at if owes else 0.0

    def submit(self, prompt: list[int], sampling: Sampling) -> TokenStream:
        """`sampling.n` choices. Raises EngineError where the engine is gone."""
        return self.submit_all([prompt], sampling)

    def submit_all(
        self, prompts: Sequence[list[int]], sampling: Sampling, cache_salt: str = "", standing: Standing = ORDINARY
    ) -> TokenStream:
        """One stream for `sampling.n` choices of each prompt. Raises EngineError where the engine is gone."""
        return self.submit_works([Work(prompt, sampling) for prompt in prompts], cache_salt, standing)

    def submit_works(self, works: Sequence[Work], cache_salt: str = "", standing: Standing = ORDINARY) -> TokenStream:
        """One stream for all the choices of these. Raises EngineError where the engine is gone."""
        if self._ending:
            raise EngineEnded("the engine process has ended; this worker is being restarted.")
        if not self._streams and not self._unanswered:
            self.last_progress_at = time.monotonic()
        firsts: list[int] = []
        ids: list[int] = []
        for work in works:
            own = [next(self._ids) for _ in range(work.sampling.n)]
            firsts.append(own[0])
            ids += own
        adds = [
            Add(first_id, work.prompt, work.sampling, work.n_generated, cache_salt, standing)
            for first_id, work in zip(firsts, works, strict=True)
        ]
        frames = [encode(add) for add in adds]  # before the engine owes anything for what cannot be told it
        stream = TokenStream(self, ids)
        self._streams |= dict.fromkeys(stream.choice_ids, stream)
        for frame in frames:
            self._write(frame)
        return stream

    def cancel(self, choice_id: int) -> None:
        if self._streams.pop(choice_id, None) is not None and not self._ending:
            self._send(Cancel(choice_id))

    def on_step(self, watch: Callable[[EngineLoad, StepDone], None]) -> None:
        """From now on, `watch` is given every step of the engine, and the load before it."""
        self._watch = watch

    @property
    def _ending(self) -> bool:
        """Its socket closes with the process, before anybody has waited for that; uvloop takes no more writes then."""
        return self.gone.done() or self._writer.is_closing()

    def _send(self, message: Message) -> None:
        self._write(encode(message))

    def _write(self, frame: bytes) -> None:
        self._unanswered = True
        self._writer.write(frame)

    async def _receive(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                self._take(decode(await self._reader.readexactly(length)))
        code = await self._process.wait()
        error = EngineEnded(f"the engine process ended with code {code}; this worker is being restarted.")
        if not self._ready.done():
            self._ready.set_exception(error)
        for stream in self._streams.values():
            stream.fail(error)

    def _take(self, message: Message) -> None:
        self.last_progress_at = time.monotonic()
        self._unanswered = False
        self.expected = message if isinstance(message, Expect) else None
        match message:
            case Progress():
                self._on_progress(message)
            case Ready():
                self._ready.set_result(message)
            case Failed(sentence):
                self._ready.set_exception(CheckpointError(sentence))
            case StepDone():
                self._watch(self.load, message)
                if message.load.steps > self.load.steps:
                    self.busy_s += message.load.step_s
                self.load = message.load
                self._spread(message)

    def _spread(self, step: StepDone) -> None:
        """Gives each stream its part. What is on its way of a cancelled choice is dropped here."""
        streams = self._streams
        for admitted in step.admitted:
            if (stream := streams.get(admitted.request_id)) is not None:
                stream.admitted[admitted.request_id] = admitted
        for token in step.tokens:
            if (stream := streams.get(token.request_id)) is not None:
                stream.put(token)
        for end in step.ended:
            # The stream knows of the end by its last token, unless an error left it without one.
            if (stream := streams.pop(end.request_id, None)) is None:
                continue
            message = end.message or "the engine could not go on with this request."
            if end.finish is Finish.ERROR:
                stream.fail(EngineError(message))
            elif end.finish is Finish.REFUSED:
                stream.fail(RequestError(message))

    async def stop(self) -> None:
        """Closes the socket, at which the engine ends; kills it if it does not. Safe to call twice."""
        self._writer.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_GRACE_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await asyncio.wait([self.gone])


def running_and_waiting(engine: EngineClient) -> tuple[int, int]:
    """Choices that clients have open: those in the batch, and the others, which wait from their submission on.

    Neither the worker's own measurement counts, nor what was taken back a moment ago, though the engine runs it still.
    """
    n_open = max(engine.n_open - engine.n_measuring, 0)
    running = min(max(engine.load.running - engine.n_measuring, 0), n_open)
    return running, n_open - running
