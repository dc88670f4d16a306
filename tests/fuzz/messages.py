"""What strangers say over a network, as bytes: HTTP, bodies, headers, event streams, datagrams and webhooks."""

from __future__ import annotations

import asyncio
import hmac
from contextlib import suppress
from functools import cache
from typing import Any, Final, cast

import orjson

from controllers.plans.alerting.inbound import MessageRefused
from controllers.plans.alerting.inbound import read as read_alerts
from gateway.admission.wire import MAC_BYTES, decode
from gateway.errors import GatewayError, answer_for, answer_for_problem
from gateway.http1.client import Lost, UpstreamConnection
from gateway.http1.limits import ByteBudget, Limits, Problem
from gateway.http1.messages import Answer, Headers, Reply, Request
from gateway.http1.server import ServerConnection, Shared
from gateway.requests import model_in, request_id_of, route_of, timeout_s, wanted_by
from gateway.routing.keys import keys_of
from gateway.streams.journal import Journal, StreamLimits
from gateway.usage import events_in, told_tokens, usage_in
from tests.fuzz.files import folder
from tests.worker_image.tiny_gguf import TEMPLATE, tiny_llama, write_gguf
from worker_image.checkpoint.gguf import GgufFile
from worker_image.checkpoint.tokenizer import load_vocabulary
from worker_image.errors import RequestError
from worker_image.profile import Shape
from worker_image.server.api_types import CompletionRequest
from worker_image.server.chat_types import ChatRequest
from worker_image.server.journal import read_journal
from worker_image.server.plans import plan_chat, plan_completion
from worker_image.server.standing import cache_salt_of, standing_of
from worker_image.server.state import Served
from worker_image.server.ticket import continued_in, ticket_in
from worker_image.server.tokenization import detokenize, tokenize
from worker_image.server.validation import parse_request
from worker_image.text.chat_template import ChatTemplate
from worker_image.text.detokenizer import TokenBytes
from worker_image.text.grammar_check import GrammarCheck, GrammarLimits
from worker_image.text.tool_calls import HermesCalls, LlamaCalls, Parsed, ToolCalls
from worker_image.text.tool_format import HERMES

SMALL: Final = Limits(head_bytes=4096, header_count=20, body_bytes=16_384, buffered_bytes=65_536)
SECRET: Final = b"s" * 32


class Transport:
    """Takes what is written and forgets it."""

    def __init__(self) -> None:
        self.closed = False

    def write(self, data: bytes) -> None: ...

    def writelines(self, data: object) -> None: ...

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class Reading:
    """An application that reads of each request what the gateway's own reads, and no more."""

    def __init__(self) -> None:
        self.broken: list[Exception] = []

    def admit(self, request: Request) -> Answer | None:
        try:
            route_of(request)
        except GatewayError as error:
            return answer_for(error, b"r-1")
        return None

    async def handle(self, request: Request, reply: Reply) -> None:
        try:
            read_request(request)
            reply.answer(Answer(200, b"{}"))
        except GatewayError as error:
            reply.answer(answer_for(error, b"r-1"))
        except Exception as error:
            self.broken.append(error)
            raise

    def refuse(self, problem: Problem) -> Answer:
        return answer_for_problem(problem)


def read_request(request: Request) -> None:
    """Raises GatewayError."""
    _, path = route_of(request)
    model_in(path)
    request_id_of(request)
    timeout_s(request, 60.0)
    if request.method == b"POST":
        keys_of(request, wanted_by(request).marks, b"salt")


@cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def in_pieces(data: bytes) -> list[bytes]:
    """The first byte says how long the pieces are."""
    size = (data[0] if data else 0) or len(data) or 1
    return [data[at : at + size] for at in range(1, len(data), size)]


def http_of_clients(data: bytes) -> None:
    app, transport = Reading(), Transport()
    shared = Shared(app, SMALL, loop())

    async def talk() -> None:
        connection = ServerConnection(shared)
        connection.connection_made(cast(asyncio.BaseTransport, transport))
        for piece in in_pieces(data):
            if transport.closed:
                break
            connection.data_received(piece)
            await asyncio.sleep(0)
        connection.connection_lost(None)

    loop().run_until_complete(talk())
    if app.broken:
        raise app.broken[0]
    assert shared.memory.held_bytes == 0, "memory of a connection that has ended is still counted"


class Watching:
    """A receiver that looks at an answer as the relay does."""

    def __init__(self) -> None:
        self.memory = ByteBudget(65_536)
        self.journal = Journal(b"0", StreamLimits(65_536, 16_384, 4096), self.memory)
        self.seen = self.ends = 0

    def on_head(self, status: int, headers: Headers) -> None:
        for _, value in headers:
            told_tokens(value)

    def on_data(self, data: bytes) -> None:
        self.seen += len(data)
        shown = self.journal.take(data)
        assert len(shown) <= self.seen
        events_in(shown)
        usage_in(shown)

    def on_end(self) -> None:
        self.ends += 1

    def on_lost(self, lost: Lost) -> None:
        self.ends += 1


def http_of_workers(data: bytes) -> None:
    receiver, transport = Watching(), Transport()
    connection = UpstreamConnection(lambda _: None, lambda _: None)
    connection.connection_made(cast(asyncio.BaseTransport, transport))
    connection.send(b"POST / HTTP/1.1\r\n\r\n", b"", receiver)
    for piece in in_pieces(data):
        connection.data_received(piece)
    connection.connection_lost(None)
    assert receiver.ends == 1, f"an answer has one end, this one {receiver.ends}"
    receiver.journal.close()
    assert receiver.memory.held_bytes == 0


def gateway_body(data: bytes) -> None:
    request = Request(b"POST", b"/v1/chat/completions", {b"x-foretide-session": data[:32]}, 1, True)
    request.body = data
    with suppress(GatewayError):
        read_request(request)


def datagram(data: bytes) -> None:
    decode(data, SECRET)
    # What a gateway with the secret would send, so that what comes behind the signature is met as well.
    decode(data + hmac.digest(SECRET, data, "sha256")[:MAC_BYTES], SECRET)


def alertmanager(data: bytes) -> None:
    with suppress(MessageRefused):
        read_alerts(data)


@cache
def served() -> Served:
    vocabulary = load_vocabulary(GgufFile(write_gguf(folder() / "served.gguf", tiny_llama())))
    return Served(
        names=("chat",),
        max_model_len=4096,
        vocabulary=vocabulary,
        token_bytes=TokenBytes(vocabulary.tokens, vocabulary.special_ids),
        template=ChatTemplate(TEMPLATE, bos_token="", eos_token="<|im_end|>"),
        tool_format=HERMES,
        grammars=GrammarCheck(vocabulary, GrammarLimits()),
        shape=Shape(len(vocabulary.tokens), 4096, 16_384, 8, 64),
    )


def chat_body(data: bytes) -> None:
    with suppress(RequestError):
        _use(plan_chat(parse_request(ChatRequest, data), served()))


def completion_body(data: bytes) -> None:
    with suppress(RequestError):
        _use(plan_completion(parse_request(CompletionRequest, data), served()))


def _use(job: Any) -> None:
    """What an engine is sent must be sendable."""
    for work in job.works:
        orjson.dumps(work.prompt)
    job.cache_salt.encode()


def tokens(data: bytes) -> None:
    for convert in (tokenize, detokenize):
        with suppress(RequestError):
            orjson.dumps(convert(data, served()))


def worker_headers(data: bytes) -> None:
    """Lines `name: value`, as aiohttp gives them; then an empty line and the body."""
    head, _, body = data.partition(b"\n\n")
    lines = (line.partition(b":") for line in head.split(b"\n"))
    headers = {
        name.decode("latin-1").lower(): value.strip().decode("utf-8", "surrogateescape") for name, _, value in lines
    }
    for read in (standing_of, cache_salt_of, ticket_in):
        with suppress(RequestError):
            read(headers)
    with suppress(RequestError):
        continued_in(headers, body, "0")


def journal(data: bytes) -> None:
    with suppress(RequestError):
        read_journal(data, 3, 300)


def tool_calls(data: bytes) -> None:
    """Text of a model, in pieces: nothing of it may be lost, whatever it looks like."""
    pieces = [piece.decode("utf-8", "replace") for piece in in_pieces(data)]
    for reader in (HermesCalls(), LlamaCalls({"f"})):
        found = _all_of(reader, pieces)
        for call in found.calls:
            assert isinstance(orjson.loads(call.arguments), dict)


def _all_of(reader: ToolCalls, pieces: list[str]) -> Parsed:
    parts = [*map(reader.push, pieces), reader.flush()]
    return Parsed("".join(part.text for part in parts), tuple(call for part in parts for call in part.calls))
