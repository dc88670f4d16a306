"""The API before an engine that says what a test has written down: HTTP is real, the engine is the test's own.

The engine is at the other end of a real socket pair, in this process, and speaks the real messages.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from aiohttp import web
from openai import AsyncOpenAI

from tests.worker_image.tiny_gguf import TEMPLATE, tiny_llama, write_gguf
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.tokenizer import Vocabulary, load_vocabulary
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
    Ready,
    StepDone,
    encode,
)
from worker_image.errors import RequestError
from worker_image.profile import Shape
from worker_image.server.admin import admin_app
from worker_image.server.api import api_app
from worker_image.server.metrics import Metrics
from worker_image.server.state import Served, ServerState
from worker_image.text.chat_template import ChatTemplate
from worker_image.text.detokenizer import TokenBytes
from worker_image.text.grammar_check import GrammarCheck, GrammarLimits
from worker_image.text.tool_format import tool_format

END = 2
CONTEXT = 4096
Script = Callable[[Add, int], "str | Exception"]
"""What a choice of a request says, until its end token; an exception's text is how the engine fails it."""


class EngineProcess:
    """Stands for the process the client believes to have started."""

    pid = os.getpid()

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def wait(self) -> int:
        await self.ended.wait()
        return -9

    def kill(self) -> None:
        self.ended.set()


@dataclass
class Running:
    """One choice amid its script."""

    ids: list[int]
    add: Add
    said: int = 0


class ScriptedEngine:
    """A token for every running choice in each step, as fast as the socket takes them."""

    def __init__(self, vocabulary: Vocabulary, script: Script) -> None:
        self.adds: list[Add] = []
        self.cancelled: list[int] = []
        self.held = asyncio.Event()
        """While cleared, no step is taken."""
        self.held.set()
        self._vocabulary = vocabulary
        self._script = script
        self._running: dict[int, Running] = {}
        self._n_steps = 0
        self._prefilled = 0

    async def run(self, sock: socket.socket, process: EngineProcess) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        frames, arrived = FrameBuffer(), asyncio.Event()
        writer.write(encode(Ready(max_model_len=CONTEXT, kv_tokens=CONTEXT, load_s=0.0)))

        async def receive() -> None:
            while piece := await reader.read(1 << 16):
                for message in frames.feed(piece):
                    self._take(message, writer)
                arrived.set()
            process.ended.set()

        receiving = asyncio.create_task(receive())
        try:
            while not process.ended.is_set():
                await asyncio.wait(
                    [asyncio.ensure_future(arrived.wait()), receiving], return_when=asyncio.FIRST_COMPLETED
                )
                arrived.clear()
                while self._running and not process.ended.is_set():
                    await self.held.wait()
                    writer.write(encode(self._step()))
                    await writer.drain()
                    await asyncio.sleep(0)
        finally:
            receiving.cancel()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def _take(self, message: Any, writer: asyncio.StreamWriter) -> None:
        match message:
            case Add():
                self.adds.append(message)
                self._begin(message, writer)
            case Cancel(choice_id):
                self.cancelled.append(choice_id)
                self._running.pop(choice_id, None)
                writer.write(encode(StepDone(self._load())))

    def _begin(self, add: Add, writer: asyncio.StreamWriter) -> None:
        self._prefilled += len(add.prompt)
        for number in range(add.sampling.n):
            said, choice_id = self._script(add, number), add.request_id + number
            admitted = [Admitted(choice_id, 0.01, len(add.prompt) // 2)]
            ended = []
            if isinstance(said, Exception):
                finish = Finish.REFUSED if isinstance(said, RequestError) else Finish.ERROR
                ended = [Ended(choice_id, finish, str(said))]
            else:
                self._running[choice_id] = Running([*self._vocabulary.encode(said, add_bos=False), END], add)
            writer.write(encode(StepDone(self._load(), admitted=admitted, ended=ended)))

    def _load(self) -> EngineLoad:
        return EngineLoad(
            steps=self._n_steps,
            running=len(self._running),
            prefill_tokens=self._prefilled,
            preemptions_by_class=[10, 11, 12, 13],
        )

    def _step(self) -> StepDone:
        self._n_steps += 1
        ids, tokens, logprobs, ended = list(self._running), [], [], []
        for choice_id, running in list(self._running.items()):
            token, sampling = running.ids[running.said], running.add.sampling
            running.said += 1
            tokens.append(token)
            if sampling.top_logprobs is not None:
                likeliest = [(token - i, -0.5 - i) for i in range(sampling.top_logprobs)]
                logprobs.append((len(tokens) - 1, Logprobs(-0.5, likeliest)))
            finish = Finish.STOP if token in sampling.stop_ids else None
            if running.said in (sampling.max_tokens, len(running.ids)):
                finish = finish or Finish.LENGTH
            if finish is not None:
                ended.append(Ended(choice_id, finish))
                del self._running[choice_id]
        return StepDone(self._load(), ids, tokens, logprobs, ended)


@dataclass
class Server:
    """A running API with its engine."""

    url: str
    admin_url: str
    engine: ScriptedEngine
    state: ServerState
    process: EngineProcess
    served: Served
    clients: list[AsyncOpenAI] = field(default_factory=list)

    @property
    def client(self) -> AsyncOpenAI:
        self.clients.append(AsyncOpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0))
        return self.clients[-1]


@asynccontextmanager
async def a_server(
    folder: Path,
    script: Script,
    *,
    template: str | None = TEMPLATE,
    limits: GrammarLimits | None = None,
    loaded: bool = True,
    prefix_caching: bool = True,
) -> AsyncIterator[Server]:
    vocabulary = load_vocabulary(GgufFile(write_gguf(folder / "tiny.gguf", tiny_llama())))
    engine, process = ScriptedEngine(vocabulary, script), EngineProcess()
    ours, theirs = socket.socketpair()
    running = asyncio.create_task(engine.run(theirs, process))
    reader, writer = await asyncio.open_connection(sock=ours)
    client = EngineClient(cast("asyncio.subprocess.Process", process), reader, writer, lambda _: None)
    state = ServerState(client, Metrics("chat"), 60.0)
    state.metrics.watch(client)
    served = replace(_served(vocabulary, template, limits or GrammarLimits()), prefix_caching=prefix_caching)
    if loaded:
        state.loaded(served)
    runners = [
        web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        for app in (api_app(state), admin_app(state))
    ]
    try:
        urls = [await _listen(runner) for runner in runners]
        server = Server(urls[0], urls[1], engine, state, process, served)
        yield server
        for openai in server.clients:
            await openai.close()
    finally:
        for runner in runners:
            await runner.cleanup()
        await served.grammars.stop()
        process.ended.set()
        await client.stop()
        await running


def _served(vocabulary: Vocabulary, template: str | None, limits: GrammarLimits) -> Served:
    return Served(
        names=("chat", "demo/chat"),
        max_model_len=CONTEXT,
        vocabulary=vocabulary,
        token_bytes=TokenBytes(vocabulary.tokens, vocabulary.special_ids),
        template=None if template is None else ChatTemplate(template, bos_token="", eos_token="<|im_end|>"),
        tool_format=None if template is None else tool_format(template),
        grammars=GrammarCheck(vocabulary, limits),
        shape=Shape(len(vocabulary.tokens), CONTEXT, 4 * CONTEXT, 8, 64),
    )


async def _listen(runner: web.AppRunner) -> str:
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"
