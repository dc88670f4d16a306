"""Answers on the wire: whole, or as server-sent events. One write for all that is new, of however many choices."""

from __future__ import annotations

from contextlib import aclosing
from typing import TypeAlias

from aiohttp import web

from crds.contract import HEADER_PROMPT_TOKENS
from worker_image.errors import EngineError
from worker_image.server.answers import DONE, Envelope, Part, WholeChoice
from worker_image.server.api_types import StreamOptions
from worker_image.server.choice import Piece
from worker_image.server.errors import error_body
from worker_image.server.generation import Generation
from worker_image.server.logprobs import LogprobsWriter
from worker_image.text.tool_calls import Call

Writers: TypeAlias = list[LogprobsWriter] | None
"""One for each choice; None where the client asks for no log probabilities."""


async def answer_whole(
    generation: Generation, envelope: Envelope, writers: Writers, echo: list[str] | None
) -> web.Response:
    """echo: what each choice's text begins with."""
    texts = echo or [""] * len(generation.choices)
    calls: list[list[Call]] = [[] for _ in texts]
    pieces_of: list[list[Piece]] = [[] for _ in texts]
    async with aclosing(generation.pieces()) as batches:
        async for pieces in batches:
            for piece in pieces:
                pieces_of[piece.choice.index].append(piece)
    choices = []
    for index, pieces in enumerate(pieces_of):
        text = texts[index] + "".join(piece.text for piece in pieces)
        calls[index] = [call for piece in pieces for call in piece.calls]
        tokens = [token for piece in pieces for token in piece.tokens]
        logprobs = None if writers is None else writers[index].write(tokens)
        finish = pieces[-1].finish
        assert finish is not None, "pieces end with a finish"
        choices.append(WholeChoice(index, text, calls[index], logprobs, finish))
    return web.Response(body=envelope.whole(choices, generation.usage), content_type="application/json")


class EventStream:
    """The parts of one streamed answer. Writing waits for a client that reads slowly."""

    def __init__(
        self, response: web.StreamResponse, generation: Generation, envelope: Envelope, writers: Writers
    ) -> None:
        self._response = response
        self._generation = generation
        self._envelope = envelope
        self._writers = writers

    async def run(self, options: StreamOptions, echo: list[str] | None) -> web.StreamResponse:
        """From the first event to [DONE]; an error event where the engine fails amid it."""
        envelope, write = self._envelope, self._response.write
        if (opening := self._opening(echo)) is not None:
            await write(opening)
        try:
            async with aclosing(self._generation.pieces()) as batches:
                async for pieces in batches:
                    if event := b"".join([self._event(piece, options) for piece in pieces]):
                        await write(event)
        except EngineError as error:
            # The status line is long gone; an error event is how OpenAI's clients learn of it.
            await write(b"data: " + error_body(str(error), 500, code="engine_failed") + b"\n\n")
            await self._response.write_eof()
            return self._response
        last = envelope.usage(self._generation.usage) if options.include_usage else b""
        await write(last + DONE)
        await self._response.write_eof()
        return self._response

    def _opening(self, echo: list[str] | None) -> bytes | None:
        envelope, indices = self._envelope, range(len(self._generation.choices))
        if envelope.chat:
            return b"".join(envelope.opening(index) for index in indices)
        return None if echo is None else b"".join(envelope.text(index, echo[index]) for index in indices)

    def _event(self, piece: Piece, options: StreamOptions) -> bytes:
        """Empty where the piece has nothing to show."""
        index = piece.choice.index
        plain = piece.finish is None and self._writers is None and not piece.calls
        if plain and not options.continuous_usage_stats:
            return self._envelope.text(index, piece.text) if piece.text else b""
        logprobs = None if self._writers is None else self._writers[index].write(piece.tokens)
        first_call = piece.choice.n_calls - len(piece.calls)
        part = Part(index, piece.text, piece.calls, first_call, logprobs, piece.finish)
        return self._envelope.part(part, self._generation.usage if options.continuous_usage_stats else None)


async def open_stream(request: web.Request, prompt_tokens: int) -> web.StreamResponse:
    """The response's head, sent before the first token is there."""
    headers = {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache",
        # For the gateway, which counts tokens and passes this on to nobody.
        HEADER_PROMPT_TOKENS: str(prompt_tokens),
    }
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    return response
