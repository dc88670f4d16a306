"""The OpenAI API's handlers: /v1/models, /v1/completions, /v1/chat/completions. HTTP in, HTTP out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar
from uuid import uuid4

import orjson
from aiohttp import web

from crds.contract import HEADER_REQUEST_ID
from worker_image.errors import EngineError
from worker_image.server.answers import Envelope, Json, LogprobsWriter
from worker_image.server.api_types import ChatRequest, CompletionRequest, GenerationRequest, parse_request
from worker_image.server.errors import answer_for, error_body
from worker_image.server.generation import Generation, Job, plan_chat, plan_completion
from worker_image.server.state import Served, ServerState

MAX_BODY_BYTES = 16 << 20
MAX_REQUEST_ID_CHARS = 256

T = TypeVar("T", bound=GenerationRequest)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def api_app(state: ServerState) -> web.Application:
    api = Api(state)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[request_id, errors])
    app.router.add_get("/v1/models", api.models)
    app.router.add_get("/v1/models/{name:.+}", api.model)
    app.router.add_post("/v1/completions", api.completions)
    app.router.add_post("/v1/chat/completions", api.chat)
    return app


@web.middleware
async def request_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Echoes the caller's request id, or gives one; streams set it themselves before their first byte."""
    given = request.headers.get(HEADER_REQUEST_ID, "")[:MAX_REQUEST_ID_CHARS]
    request[HEADER_REQUEST_ID] = given if given.isprintable() and given else uuid4().hex
    response = await handler(request)
    if not response.prepared:
        response.headers[HEADER_REQUEST_ID] = request[HEADER_REQUEST_ID]
    return response


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001 - the last handler: every failure must become an answer in OpenAI's shape
        return answer_for(error)


class Api:
    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def models(self, _: web.Request) -> web.Response:
        served = self._state.served()
        return _json({"object": "list", "data": [_model(served, name) for name in served.names]})

    async def model(self, request: web.Request) -> web.Response:
        served, name = self._state.served(), request.match_info["name"]
        served.check_name(name)
        return _json(_model(served, name))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, ChatRequest, plan_chat)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, CompletionRequest, plan_completion)

    async def _generate(
        self, request: web.Request, kind: type[T], plan: Callable[[T, Served], Job]
    ) -> web.StreamResponse:
        served = self._state.enter()
        try:
            asked = parse_request(kind, await request.read())
            job = plan(asked, served)
            generation = Generation(job, served, self._state.engine, self._state.metrics)
            envelope = Envelope(asked.model, chat=kind is ChatRequest)
            writer = None
            if job.sampling.top_logprobs is not None:
                writer = LogprobsWriter(served.vocabulary, served.token_bytes, chat=envelope.chat)
            if not asked.stream:
                return await self._whole(generation, envelope, writer)
            include_usage = asked.stream_options is not None and asked.stream_options.include_usage
            return await self._stream(request, generation, envelope, writer, include_usage=include_usage)
        finally:
            self._state.leave()

    async def _whole(self, generation: Generation, envelope: Envelope, writer: LogprobsWriter | None) -> web.Response:
        text, tokens, finish = "", [], None
        async with aclosing(generation.pieces()) as pieces:
            async for piece in pieces:
                text += piece.text
                tokens += piece.tokens
                finish = piece.finish
        assert finish is not None, "pieces end with a finish"
        logprobs = None if writer is None else writer.write(tokens)
        return _json(envelope.whole(text, finish.value, generation.usage, logprobs))

    async def _stream(
        self,
        request: web.Request,
        generation: Generation,
        envelope: Envelope,
        writer: LogprobsWriter | None,
        *,
        include_usage: bool,
    ) -> web.StreamResponse:
        events = await EventStream.open(request)
        async with aclosing(generation.pieces()) as pieces:
            try:
                if envelope.chat:
                    await events.send(envelope.opening())
                async for piece in pieces:
                    if piece.text or piece.finish or writer:
                        logprobs = None if writer is None else writer.write(piece.tokens)
                        finish = None if piece.finish is None else piece.finish.value
                        await events.send(envelope.part(piece.text, finish, logprobs))
            except EngineError as error:
                # The status line is long gone; an error event is how OpenAI's clients learn of it.
                return await events.fail(str(error))
        if include_usage:
            await events.send(envelope.usage_part(generation.usage))
        return await events.end()


class EventStream:
    """Server-sent events of one answer. Writing waits for a client that reads slowly."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response

    @classmethod
    async def open(cls, request: web.Request) -> EventStream:
        headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            HEADER_REQUEST_ID: request[HEADER_REQUEST_ID],
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        return cls(response)

    async def send(self, value: Json) -> None:
        await self._response.write(b"data: " + orjson.dumps(value) + b"\n\n")

    async def fail(self, message: str) -> web.StreamResponse:
        await self._response.write(b"data: " + error_body(message, 500, code="engine_failed") + b"\n\n")
        await self._response.write_eof()
        return self._response

    async def end(self) -> web.StreamResponse:
        await self._response.write(b"data: [DONE]\n\n")
        await self._response.write_eof()
        return self._response


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
