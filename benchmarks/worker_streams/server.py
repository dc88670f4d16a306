"""`python -m benchmarks.worker_streams.server PORT ENGINE_ARGUMENTS…`: the worker's real API before that engine."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys

import uvloop
from aiohttp import web
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks.worker_streams.engine import N_TOKENS
from worker_image.checkpoint.tokenizer import Vocabulary
from worker_image.engine.client import READ_AHEAD_BYTES, EngineClient
from worker_image.engine.messages import EngineSettings, Start, encode
from worker_image.profile import Shape
from worker_image.server.api import api_app
from worker_image.server.metrics import Metrics
from worker_image.server.state import Served, ServerState
from worker_image.text.chat_template import ChatTemplate
from worker_image.text.detokenizer import TokenBytes
from worker_image.text.grammar_check import GrammarCheck, GrammarLimits


def served() -> Served:
    words = tuple(f"Ġw{i:x}" for i in range(N_TOKENS))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    vocabulary = Vocabulary(tokenizer, words, frozenset(), None, "", "", frozenset(), add_bos=False, chat_template=None)
    return Served(
        names=("bench",),
        max_model_len=8192,
        vocabulary=vocabulary,
        token_bytes=TokenBytes(words, frozenset()),
        template=ChatTemplate("{{ messages[0]['content'] }}", bos_token="", eos_token=""),
        tool_format=None,
        grammars=GrammarCheck(vocabulary, GrammarLimits()),
        shape=Shape(N_TOKENS, 8192, 1 << 20, 2048, 8192),
    )


async def engine_client(arguments: list[str]) -> EngineClient:
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.worker_streams.engine", str(theirs.fileno()), *arguments,
            pass_fds=[theirs.fileno()],
        )  # fmt: skip
    reader, writer = await asyncio.open_connection(sock=ours, limit=READ_AHEAD_BYTES)
    writer.write(encode(Start(EngineSettings("", 1, 1, 1, 1, None, None))))
    return EngineClient(process, reader, writer, lambda _: None)


async def main() -> None:
    port, *arguments = sys.argv[1:]
    engine = await engine_client(arguments)
    state = ServerState(engine, Metrics("bench"), 60.0)
    state.metrics.watch(engine)
    state.loaded(served())
    gc.collect()
    gc.freeze()
    runner = web.AppRunner(api_app(state), handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(port), backlog=4096).start()
    await engine.wait_ready()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await runner.cleanup()
    await engine.stop()


if __name__ == "__main__":
    uvloop.run(main())
