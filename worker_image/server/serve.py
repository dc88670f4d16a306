"""`serve`: from process start to exit. Start, listen, load, serve, drain, stop: one function each.

Exit codes: 0 after a drain; 1 when the engine process ended by itself (the kubelet restarts us); 2 when the
checkpoint or the settings were refused; 3 when the scratch folder held more than it may; 130 when a second signal cut
the drain short.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import time
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from crds.contract import WORKER_EXIT_REFUSED, WORKER_EXIT_SCRATCH_FULL
from worker_image.errors import CheckpointError, EngineError, SettingsError
from worker_image.loading import Loaded, finish_loading, shape_of, start_engine
from worker_image.logs import report_fatal
from worker_image.progress import show_progress
from worker_image.server.admin import admin_app
from worker_image.server.api import api_app
from worker_image.server.metrics import Metrics
from worker_image.server.scratch import empty_overfull, overflow
from worker_image.server.state import Served, ServerState
from worker_image.settings import ServeSettings
from worker_image.text.grammar_check import GrammarCheck, GrammarLimits
from worker_image.text.tool_format import tool_format

log = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_ENGINE_ENDED: Final = 1
EXIT_CUT_SHORT: Final = 130
ANSWER_GRACE_S: Final = 2.0
"""Time for the answers to open requests to leave after the engine has ended."""
BACKLOG: Final = 2048
"""Connections that may come at once."""
SCRATCH_DRAIN_S: Final = 5.0
"""For open requests when the scratch folder is too full: a kubelet that notices cuts them all."""
MAX_OPEN_FILES: Final = 65_536


class Signals:
    """SIGTERM and SIGINT, counted: the first asks to drain, the second to end at once."""

    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._arrived)

    def _arrived(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def serve(settings: ServeSettings) -> int:
    """Runs until a signal or the end of the engine; gives the exit code."""
    started_at = time.monotonic()
    signals = Signals()
    _allow_many_connections()
    if settings.scratch is not None:
        empty_overfull(settings.scratch, settings.scratch_bytes)
    try:
        path, engine = await start_engine(settings.model, show_progress())
    except (CheckpointError, SettingsError) as error:
        return _refused(error)
    state = ServerState(engine, Metrics(settings.names[0]), settings.stall_limit_s)
    state.metrics.watch(engine)
    runners: list[web.AppRunner] = []
    try:
        await _listen(settings, state, runners)
        return await _run(settings, state, path, signals, started_at)
    except SettingsError as error:
        return _refused(error)
    finally:
        for runner in runners:
            await runner.cleanup()
        await state.stop()
        await engine.stop()


def _allow_many_connections() -> None:
    """Each stream is an open file, and a login shell's limit is often 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _listen(settings: ServeSettings, state: ServerState, runners: list[web.AppRunner]) -> None:
    """Both ports, before the model is loaded: liveness and a clear 503 need no weights. Whoever calls cleans the
    runners up. Raises SettingsError where a port cannot be had.
    """
    ports = (("--port", api_app(state), settings.port), ("--admin-port", admin_app(state), settings.admin_port))
    for flag, app, port in ports:
        # A client that leaves must cancel its handler, and with it the engine's work.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=ANSWER_GRACE_S)
        runners.append(runner)
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, port, backlog=BACKLOG).start()
        except OSError as error:
            raise SettingsError(f"{flag} {port}, --host {settings.host}: cannot listen: {error.strerror}.") from None
        log.info("listening on %s", ", ".join(f"{host}:{port}" for host, port, *_ in runner.addresses))


async def _run(settings: ServeSettings, state: ServerState, path: Path, signals: Signals, started_at: float) -> int:
    loading = asyncio.create_task(_load(settings, state, path, started_at))
    signalled = asyncio.create_task(signals.first.wait())
    overfull = asyncio.create_task(_overflow(settings))
    try:
        await asyncio.wait([loading, signalled], return_when=asyncio.FIRST_COMPLETED)
        if loading.done() and (error := loading.exception()) is not None:
            return _load_failed(error)
        await asyncio.wait([state.engine.gone, signalled, overfull], return_when=asyncio.FIRST_COMPLETED)
        if signalled.done():
            return await _drain(state, signals, settings.drain_notice_s, settings.drain_timeout_s)
        if overfull.done():
            return await _scratch_full(settings, state, signals, overfull.result())
        return await _engine_ended(state)
    finally:
        tasks = (loading, signalled, overfull)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _overflow(settings: ServeSettings) -> str:
    """Never ends where no folder is watched."""
    if settings.scratch is None:
        return await asyncio.Future[str]()
    return await overflow(settings.scratch, settings.scratch_bytes)


async def _load(settings: ServeSettings, state: ServerState, path: Path, started_at: float) -> None:
    loaded = await finish_loading(settings.model, path, state.engine)
    state.loaded(served(settings, loaded))
    # What is loaded stays: the garbage collector need not walk a vocabulary again and again.
    gc.collect()
    gc.freeze()
    log.info(
        "ready after %.1f s (weights %.1f s): %s, %d tokens of context, KV cache for %d tokens",
        time.monotonic() - started_at, loaded.engine.load_s, ", ".join(settings.names),
        loaded.engine.max_model_len, loaded.engine.kv_tokens,
    )  # fmt: skip


def served(settings: ServeSettings, loaded: Loaded) -> Served:
    text = loaded.text
    source = text.vocabulary.chat_template
    return Served(
        names=settings.names,
        max_model_len=loaded.engine.max_model_len,
        vocabulary=text.vocabulary,
        token_bytes=text.token_bytes,
        template=text.template,
        tool_format=None if source is None else tool_format(source),
        grammars=GrammarCheck(text.vocabulary, GrammarLimits(timeout_s=settings.grammar_timeout_s)),
        shape=shape_of(settings.model, loaded),
        prefix_caching=settings.prefix_caching,
        # The length of an answer without a limit of its own depends on it, and it on the memory that was left.
        fingerprint=f"{text.fingerprint}{loaded.engine.max_model_len:x}",
    )


def _refused(error: BaseException) -> int:
    report_fatal(str(error))
    return WORKER_EXIT_REFUSED


def _load_failed(error: BaseException) -> int:
    if isinstance(error, CheckpointError | SettingsError):
        return _refused(error)
    if isinstance(error, EngineError):
        report_fatal(str(error))
        return EXIT_ENGINE_ENDED
    raise error


async def _engine_ended(state: ServerState) -> int:
    """Open requests are answered with an error by their streams; then the process ends, to be restarted."""
    report_fatal(f"the engine process {state.engine.pid} ended by itself; {state.n_open} requests fail.")
    state.drain()
    try:
        await asyncio.wait_for(state.wait_idle(), ANSWER_GRACE_S)
    except TimeoutError:
        log.warning("%d requests were still open %g s after the engine ended", state.n_open, ANSWER_GRACE_S)
    return EXIT_ENGINE_ENDED


async def _scratch_full(settings: ServeSettings, state: ServerState, signals: Signals, said: str) -> int:
    report_fatal(said)
    await _drain(state, signals, settings.drain_notice_s, min(settings.drain_timeout_s, SCRATCH_DRAIN_S))
    return WORKER_EXIT_SCRATCH_FULL


async def _drain(state: ServerState, signals: Signals, notice_s: float, limit_s: float) -> int:
    """Refuses new requests, lets open ones finish, and keeps answering 503 long enough for gateways to notice."""
    state.drain()
    log.info("draining: %d open requests, at most %g s", state.n_open, limit_s)
    cut = asyncio.create_task(signals.second.wait())
    finished = asyncio.create_task(_finish_open(state, notice_s))
    done, _ = await asyncio.wait(
        [finished, cut, state.engine.gone], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
    )
    if not done:
        done = await _hand_over(state, finished, cut)
    finished.cancel()
    cut.cancel()
    if finished in done:
        log.info("drained")
        return EXIT_OK
    log.warning("the drain was cut short with %d open requests", state.n_open)
    return EXIT_CUT_SHORT


async def _hand_over(state: ServerState, *ends: asyncio.Task[Any]) -> set[asyncio.Task[Any]]:
    """The time is up: streams that have a journal go on elsewhere. What has ended when they had time to leave."""
    log.warning("%d of %d open requests are handed over to other workers", state.hand_over(), state.n_open)
    done, _ = await asyncio.wait(ends, timeout=ANSWER_GRACE_S, return_when=asyncio.FIRST_COMPLETED)
    return done


async def _finish_open(state: ServerState, notice_s: float) -> None:
    await asyncio.sleep(notice_s)
    await state.wait_idle()
