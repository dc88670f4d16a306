"""`python -m benchmarks.failover.worker STEP_MS`: reads ports, forks a worker for each, answers with its process id.

A worker is the real server before an engine that computes nothing: its next token is a hash of the seed and of all
tokens before it, so a token that is lost, repeated or changed changes every one that follows. Forking one costs
milliseconds, so that a thousand can be killed. SIGUSR1 makes the engine stand still behind a server that goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from dataclasses import dataclass, replace
from typing import cast

from aiohttp import web

from benchmarks.worker_streams.engine import N_TOKENS
from benchmarks.worker_streams.server import served
from worker_image.engine.client import EngineClient
from worker_image.engine.messages import (
    Add,
    Admitted,
    Cancel,
    Ended,
    EngineLoad,
    Finish,
    FrameBuffer,
    Logprobs,
    Message,
    Ready,
    StepDone,
    encode,
)
from worker_image.server.api import api_app
from worker_image.server.metrics import Metrics
from worker_image.server.state import Served, ServerState

_MASK = (1 << 64) - 1


@dataclass
class _Choice:
    add: Add
    state: int
    n_left: int

    def next(self) -> int:
        token = (self.state >> 24) % N_TOKENS
        self.state = _mixed(self.state, token)
        self.n_left -= 1
        return token


def _mixed(state: int, token: int) -> int:
    x = (state ^ (token + 0x9E3779B97F4A7C15)) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    return x ^ (x >> 27)


class HashEngine:
    """A token for each choice in each step."""

    def __init__(self, step_s: float) -> None:
        self.stuck = False
        self._step_s = step_s
        self._choices: dict[int, _Choice] = {}
        self._steps = 0

    async def run(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        frames = FrameBuffer()
        writer.write(encode(Ready(8192, 1 << 20, 0.0)))
        stepping = asyncio.create_task(self._step_for_ever(writer))
        try:
            while piece := await reader.read(1 << 16):
                for message in frames.feed(piece):
                    self._take(message, writer)
        finally:
            stepping.cancel()

    def _take(self, message: Message, writer: asyncio.StreamWriter) -> None:
        match message:
            case Add():
                for index in range(message.sampling.n):
                    state = (message.sampling.seed or 0) + index
                    for token in message.prompt:
                        state = _mixed(state, token)
                    n_left = message.sampling.max_tokens - message.n_generated
                    self._choices[message.request_id + index] = _Choice(message, state, n_left)
                    admitted = [Admitted(message.request_id + index, 0.0, 0)]
                    if not self.stuck:
                        writer.write(encode(StepDone(self._load(), admitted=admitted)))
            case Cancel(choice_id):
                self._choices.pop(choice_id, None)
                if not self.stuck:
                    writer.write(encode(StepDone(self._load())))

    async def _step_for_ever(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await asyncio.sleep(self._step_s)
            if self._choices and not self.stuck:
                writer.write(encode(self._step()))

    def _step(self) -> StepDone:
        self._steps += 1
        tokens = {i: choice.next() for i, choice in self._choices.items()}
        logprobs = [
            (row, Logprobs(-token / N_TOKENS, [(token, -token / N_TOKENS)] * (choice.add.sampling.top_logprobs or 0)))
            for row, (choice, token) in enumerate(zip(self._choices.values(), tokens.values(), strict=True))
            if choice.add.sampling.top_logprobs is not None
        ]
        ended = [Ended(i, Finish.LENGTH) for i, choice in self._choices.items() if not choice.n_left]
        for end in ended:
            del self._choices[end.request_id]
        return StepDone(self._load(), list(tokens), list(tokens.values()), logprobs, ended)

    def _load(self) -> EngineLoad:
        return EngineLoad(steps=self._steps, running=len(self._choices), step_s=self._step_s)


class _Process:
    """Stands for the engine's process, which is this one."""

    pid = 0

    async def wait(self) -> int:
        await asyncio.Event().wait()
        return 0


async def serve(port: int, step_s: float, model: Served) -> None:
    engine = HashEngine(step_s)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: setattr(engine, "stuck", True))
    ours, theirs = socket.socketpair()
    running = asyncio.create_task(engine.run(theirs))
    reader, writer = await asyncio.open_connection(sock=ours)
    client = EngineClient(cast("asyncio.subprocess.Process", _Process()), reader, writer, lambda _: None)
    state = ServerState(client, Metrics("bench"), 60.0)
    state.metrics.watch(client)
    state.loaded(model)
    runner = web.AppRunner(api_app(state), handler_cancellation=True, access_log=None)
    await runner.setup()
    while True:
        try:
            await web.TCPSite(runner, "127.0.0.1", port, backlog=512, reuse_address=True).start()
            break
        except OSError:
            await asyncio.sleep(0.01)  # the one before it is still being killed
    await running


def main() -> None:
    # The gateway proves a worker that comes back by a token of the name that it knows the service by.
    step_s, model = float(sys.argv[1]) / 1e3, replace(served(), names=("bench", "demo/bench"))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that were killed
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            os.close(0)
            asyncio.run(serve(int(line), step_s, model))
            os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
