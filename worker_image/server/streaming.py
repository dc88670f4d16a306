"""Answers on the wire: whole, or as server-sent events. One write for all that is new, of however many choices."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web

from crds.contract import HEADER_PROMPT_TOKENS, HEADER_STREAM, HEADER_TIMING, LEFT_DRAINING, LEFT_ENGINE
from worker_image.errors import EngineError, LeavingError, RequestError
from worker_image.server.answers import DONE, Envelope, Part, WholeChoice
from worker_image.server.api_types import StreamOptions
from worker_image.server.choice import Piece
from worker_image.server.errors import error_body
from worker_image.server.generation import Generation
from worker_image.server.journal import JournalWriter, Past, complete, left
from worker_image.server.logprobs import LogprobsWriter
from worker_image.text.tool_calls import Call

Writers: TypeAlias = list[LogprobsWriter] | None
"""One for each choice; None where the client asks for no log probabilities."""


@dataclass(frozen=True)
class Answering:
    """One answer about to be given, and how it is to look."""

    generation: Generation
    envelope: Envelope
    writers: Writers
    options: StreamOptions
    echo: list[str] | None
    """What each choice's text begins with."""
    pasts: list[Past] | None = None
    """What each choice has said on another worker; None for one that begins here."""
    traced: bool = False
    """The gateway is told where the time went."""


async def answer_whole(answer: Answering) -> web.Response:
    generation, envelope, writers = answer.generation, answer.envelope, answer.writers
    texts = answer.echo or [""] * len(generation.choices)
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
    headers = {HEADER_TIMING: generation.timing} if answer.traced else None
    body = envelope.whole(choices, generation.usage)
    return web.Response(body=body, content_type="application/json", headers=headers)


class EventStream:
    """The parts of one streamed answer. Writing waits for a client that reads slowly."""

    def __init__(self, response: web.StreamResponse, answer: Answering, journal: JournalWriter | None = None) -> None:
        """journal: where the gateway keeps one; its comment then ends each write."""
        self._response = response
        self._generation, self._envelope, self._writers = answer.generation, answer.envelope, answer.writers
        self._options, self._echo = answer.options, answer.echo
        self._begun = answer.pasts is not None
        self._traced = answer.traced
        self._journal = journal

    async def run(self) -> web.StreamResponse:
        """From the first event to [DONE]; an error event where it cannot go on."""
        envelope, write, journal = self._envelope, self._response.write, self._journal
        # It comes with the first token: whoever waits for the first event must not take a queue for an answer.
        opening = b"" if self._begun else self._opening()
        try:
            async with aclosing(self._generation.pieces()) as batches:
                async for pieces in batches:
                    event = opening + b"".join([self._event(piece, self._options) for piece in pieces])
                    opening = b""
                    if journal is not None:
                        await write(event + journal.line(pieces))
                    elif event:
                        await write(event)
        except (EngineError, RequestError) as error:
            await write(_last_event(error, journalled=journal is not None))
            await self._response.write_eof()
            return self._response
        last = envelope.usage(self._generation.usage) if self._options.include_usage else b""
        timing = self._generation.timing if self._traced else ""
        await write(last + DONE + (b"" if journal is None else complete(timing)))
        await self._response.write_eof()
        return self._response

    def _opening(self) -> bytes:
        envelope, echo, indices = self._envelope, self._echo, range(len(self._generation.choices))
        if envelope.chat:
            return b"".join(envelope.opening(index) for index in indices)
        return b"" if echo is None else b"".join(envelope.text(index, echo[index]) for index in indices)

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


def _last_event(error: EngineError | RequestError, *, journalled: bool) -> bytes:
    """The status line is long gone; an error event is how OpenAI's clients learn of it."""
    if isinstance(error, RequestError):
        # Another worker could not answer it either.
        body, mark = error_body(str(error), error.status, error.param, error.code), complete("")
    else:
        body = error_body(str(error), 500, code="engine_failed")
        mark = left(LEFT_DRAINING if isinstance(error, LeavingError) else LEFT_ENGINE)
    return b"data: " + body + b"\n\n" + (mark if journalled else b"")


async def open_stream(request: web.Request, prompt_tokens: int, fingerprint: str | None = None) -> web.StreamResponse:
    """The response's head, sent before the first token is there. fingerprint: where a journal will be written."""
    headers = {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache",
        # For the gateway, which counts tokens and passes this on to nobody.
        HEADER_PROMPT_TOKENS: str(prompt_tokens),
    }
    if fingerprint is not None:
        headers[HEADER_STREAM] = fingerprint
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    return response
