"""The OpenAI API's handlers, and the few of vLLM's beside it that clients use. HTTP in, HTTP out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, ParamSpec, TypeVar
from uuid import uuid4

import orjson
from aiohttp import web

from crds.contract import HEADER_REQUEST_ID, WORKER_PATH_LOAD
from crds.log_lines import about
from worker_image import VERSION
from worker_image.errors import RequestError
from worker_image.server.answers import Envelope, Json
from worker_image.server.api_types import CompletionRequest, GenerationRequest, StreamOptions
from worker_image.server.chat_types import ChatRequest
from worker_image.server.errors import answer_for, error_answer
from worker_image.server.generation import Generation
from worker_image.server.journal import JournalWriter, Past, read_journal
from worker_image.server.load import LoadReport
from worker_image.server.logprobs import LogprobsWriter
from worker_image.server.plans import Job, plan_chat, plan_completion
from worker_image.server.standing import cache_salt_of, standing_of
from worker_image.server.state import Served, ServerState
from worker_image.server.streaming import Answering, EventStream, answer_whole, open_stream
from worker_image.server.ticket import Ticket, continued_in, ticket_in
from worker_image.server.timing import is_traced, trace_id_of
from worker_image.server.tokenization import detokenize, tokenize
from worker_image.server.validation import parse_request

MAX_BODY_BYTES: Final = 16 << 20
MAX_REQUEST_ID_CHARS: Final = 256
LONG_BODY_BYTES: Final = 32 << 10
"""About 3 ms of tokenizing."""

T = TypeVar("T", bound=GenerationRequest)
P = ParamSpec("P")
R = TypeVar("R")
Plan = Callable[[T, Served, int | None], Job]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def api_app(state: ServerState) -> web.Application:
    api = Api(state)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[named, errors])
    app.on_response_prepare.append(request_id)
    app.router.add_get("/health", api.health)
    app.router.add_get(WORKER_PATH_LOAD, api.load)
    app.router.add_get("/version", api.version)
    app.router.add_get("/v1/models", api.models)
    app.router.add_get("/v1/models/{name:.+}", api.model)
    app.router.add_post("/v1/completions", api.completions)
    app.router.add_post("/v1/chat/completions", api.chat)
    app.router.add_post("/tokenize", api.tokenize)
    app.router.add_post("/detokenize", api.detokenize)
    return app


async def request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Echoes the caller's request id, or gives one."""
    response.headers[HEADER_REQUEST_ID] = _given_id(request) or uuid4().hex


def _given_id(request: web.Request) -> str | None:
    given = request.headers.get(HEADER_REQUEST_ID, "")[:MAX_REQUEST_ID_CHARS]
    return given if given.isprintable() and given else None


@web.middleware
async def named(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What is logged while the request is answered says of which one, in the gateway's words."""
    said = {"request_id": _given_id(request), "trace_id": trace_id_of(request.headers)}
    with about(**{name: value for name, value in said.items() if value is not None}):
        return await handler(request)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001 - the last handler: every failure must become an answer in OpenAI's shape
        return answer_for(error)


class Api:
    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._load = LoadReport(state)

    async def health(self, _: web.Request) -> web.Response:
        problem = self._state.why_not_ready(time.monotonic())
        return web.Response(status=200) if problem is None else error_answer(f"{problem.capitalize()}.", 503)

    async def load(self, _: web.Request) -> web.Response:
        return _json(self._load.facts(time.monotonic()))

    async def version(self, _: web.Request) -> web.Response:
        return _json({"version": VERSION})

    async def models(self, _: web.Request) -> web.Response:
        served = self._state.served()
        return _json({"object": "list", "data": [_model(served, name) for name in served.names]})

    async def model(self, request: web.Request) -> web.Response:
        served, name = self._state.served(), request.match_info["name"]
        served.check_name(name)
        return _json(_model(served, name))

    async def tokenize(self, request: web.Request) -> web.Response:
        return await self._convert(request, tokenize)

    async def detokenize(self, request: web.Request) -> web.Response:
        return await self._convert(request, detokenize)

    async def _convert(self, request: web.Request, convert: Callable[[bytes, Served], Json]) -> web.Response:
        served, body = self._state.served(), await request.read()
        return _json(await _off_the_loop(len(body), convert, body, served))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, ChatRequest, plan_chat)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, CompletionRequest, plan_completion)

    async def _generate(self, request: web.Request, kind: type[T], plan: Plan[T]) -> web.StreamResponse:
        served = self._state.enter()
        try:
            standing, ticket = standing_of(request.headers), ticket_in(request.headers)
            salt = cache_salt_of(request.headers)
            body, journal = continued_in(request.headers, await request.read(), served.fingerprint)
            asked, job = await _off_the_loop(len(body), _understand, kind, body, plan, served, ticket)
            if job.sampling.grammar is not None:
                await served.grammars.check(job.sampling.grammar, job.grammar_from, salt)
            job = replace(job, standing=standing, cache_salt=f"{salt}\0{job.cache_salt}")
            answer = self._prepare(asked, job, served, ticket, _pasts(journal, asked, job, served))
            answer = replace(answer, traced=is_traced(request.headers))
            if not asked.stream:
                return await answer_whole(answer)
            return await self._stream(request, answer, served, journalled=ticket is not None)
        finally:
            self._state.leave()

    def _prepare(
        self, asked: GenerationRequest, job: Job, served: Served, ticket: Ticket | None, pasts: list[Past] | None
    ) -> Answering:
        """Raises RequestError."""
        generation = Generation(job, served, self._state.engine, self._state.metrics, pasts)
        options = asked.stream_options or StreamOptions()
        chat = isinstance(asked, ChatRequest)
        envelope = Envelope(asked.model, chat=chat, usage=options.include_usage, ticket=ticket)
        writers = None
        if job.sampling.top_logprobs is not None:
            writers = [LogprobsWriter(served.token_bytes, chat=chat) for _ in generation.choices]
            for writer, past in zip(writers, pasts or (), strict=False):
                writer.skip(past.tokens)
        echo = None if job.echo is None else [text for text in job.echo for _ in range(job.sampling.n)]
        return Answering(generation, envelope, writers, options, echo, pasts)

    async def _stream(
        self, request: web.Request, answer: Answering, served: Served, *, journalled: bool
    ) -> web.StreamResponse:
        prompt_tokens = answer.generation.usage.prompt_tokens
        if not journalled:
            return await EventStream(await open_stream(request, prompt_tokens), answer).run()
        journal = JournalWriter(answer.pasts or [Past() for _ in answer.generation.choices])
        self._state.began(answer.generation)
        try:
            response = await open_stream(request, prompt_tokens, served.fingerprint)
            return await EventStream(response, answer, journal).run()
        finally:
            self._state.ended(answer.generation)


def _understand(kind: type[T], body: bytes, plan: Plan[T], served: Served, ticket: Ticket | None) -> tuple[T, Job]:
    asked = parse_request(kind, body)
    if ticket is None:
        return asked, plan(asked, served, None)
    return asked, replace(plan(asked, served, ticket.created), drawn_seed=ticket.seed)


def _pasts(journal: bytes | None, asked: GenerationRequest, job: Job, served: Served) -> list[Past] | None:
    """What each choice has said elsewhere; None for a request that begins here. Raises RequestError."""
    if journal is None:
        return None
    if not asked.stream:
        raise RequestError("only a stream goes on where another worker stopped.", param="stream")
    return read_journal(journal, len(job.prompts) * job.sampling.n, len(served.vocabulary.tokens))


async def _off_the_loop(size_bytes: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Long texts take long to tokenize, which other streams shall not wait for; short ones are not worth a thread."""
    if size_bytes < LONG_BODY_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


def _model(served: Served, name: str) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": served.created,
        "owned_by": "foretide",
        "max_model_len": served.max_model_len,
    }


def _json(value: Json) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
