"""The gRPC server that Envoy talks to: one stream of messages for each HTTP request. Chooses nothing itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from gateway.catalog import Tenant
from gateway.endpoint_picker import conversation as say
from gateway.endpoint_picker import ext_proc_pb2 as wire
from gateway.endpoint_picker.certificate import Certificate
from gateway.endpoint_picker.choices import Choices, Course
from gateway.errors import SettingsError, answer_for_problem
from gateway.http1.limits import ByteBudget, Problem
from gateway.http1.messages import Answer, Request

METHOD_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
HEALTH_SERVICE = "grpc.health.v1.Health"
_SERVING = b"\x08\x01"
"""grpc.health.v1.HealthCheckResponse with the status SERVING."""
_BESIDE_BYTES = 256 * 1024
"""Of a message, beside the body that it may hold."""
_Messages = AsyncIterator[wire.ProcessingRequest]


class EndpointPicker:
    """`start`, then `stop`. Requests that are open at the stop get `grace_s` to end."""

    def __init__(self, choices: Choices, body_bytes: int, memory: ByteBudget) -> None:
        self._choices = choices
        self._body_bytes = body_bytes
        self._memory = memory
        self._server: grpc.aio.Server | None = None

    async def start(self, host: str, port: int, certificate: tuple[Path, Path] | None = None) -> int:
        """Listens, with TLS where a certificate and its key are given, and returns the port.

        Raises:
            SettingsError: the port is taken, or a file cannot be used.
        """
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_concurrent_streams", 10_000),
                ("grpc.max_receive_message_length", self._body_bytes + _BESIDE_BYTES),
            ]
        )
        process = grpc.stream_stream_rpc_method_handler(
            self._process,
            request_deserializer=wire.ProcessingRequest.FromString,
            response_serializer=wire.ProcessingResponse.SerializeToString,
        )
        check = grpc.unary_unary_rpc_method_handler(_healthy)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(METHOD_SERVICE, {"Process": process}),
                grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": check}),
            )
        )
        address = f"{host}:{port}"
        try:
            if certificate is None:
                bound = server.add_insecure_port(address)
            else:
                bound = server.add_secure_port(address, Certificate(*certificate).credentials())
        except RuntimeError as error:
            raise SettingsError(f"The endpoint picker cannot listen on {address}: is the port taken?") from error
        await server.start()
        self._server = server
        return bound

    async def stop(self, grace_s: float) -> None:
        if self._server is not None:
            await self._server.stop(grace_s)

    async def _process(self, messages: _Messages, context: object) -> AsyncIterator[wire.ProcessingResponse]:
        talk = _Talk(self._choices, self._body_bytes, self._memory)
        try:
            async for message in messages:
                async for answer in talk.take(message):
                    yield answer
                if talk.over:
                    return
        finally:
            talk.end()


class _Talk:
    """One HTTP request: what has come of it, and how far it is."""

    def __init__(self, choices: Choices, body_bytes: int, memory: ByteBudget) -> None:
        self.over = False
        self._choices = choices
        self._most = body_bytes
        self._memory = memory
        self._request: Request | None = None
        self._tenant: Tenant | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._request_mode = say.BUFFERED
        self._in_one_piece = False
        """A body is all there is of it, though trailers may follow."""
        self._response_mode = 0
        self._course: Course | None = None
        self._whole = False

    async def take(self, message: wire.ProcessingRequest) -> AsyncIterator[wire.ProcessingResponse]:
        """The answers to one message."""
        if message.HasField("protocol_config"):
            self._request_mode = message.protocol_config.request_body_mode
            self._in_one_piece = self._request_mode == say.BUFFERED
            self._response_mode = message.protocol_config.response_body_mode
        match message.WhichOneof("request"):
            case "request_headers":
                async for answer in self._head(message.request_headers):
                    yield answer
            case "request_body":
                async for answer in self._more_body(message.request_body):
                    yield answer
            case "request_trailers":
                if self._course is None:
                    async for answer in self._choose(ends=False):
                        yield answer
                if not self.over:
                    yield wire.ProcessingResponse(request_trailers=wire.TrailersResponse())
            case "response_headers":
                yield self._response_head(message.response_headers)
            case "response_body":
                for answer in self._response_body(message.response_body):
                    yield answer
            case "response_trailers":
                self._whole = True
                yield wire.ProcessingResponse(response_trailers=wire.TrailersResponse())

    def end(self) -> None:
        """The stream is over, however it came to that."""
        self._memory.give_back(self._size)
        self._size = 0
        if self._course is not None:
            self._course.end(whole=self._whole)
            self._course = None

    # --- the request ------------------------------------------------------------------------------------------------

    async def _head(self, headers: wire.HttpHeaders) -> AsyncIterator[wire.ProcessingResponse]:
        self._request = say.request_of(headers)
        admitted = self._choices.admit(self._request)
        if isinstance(admitted, Answer):
            yield self._instead(admitted)
            return
        self._tenant = admitted
        if headers.end_of_stream:
            async for answer in self._choose():
                yield answer
        elif self._request_mode != say.FULL_DUPLEX_STREAMED:
            yield say.go_on_with_request_head()

    async def _more_body(self, body: wire.HttpBody) -> AsyncIterator[wire.ProcessingResponse]:
        size = len(body.body)
        if self._size + size > self._most:
            yield self._instead(answer_for_problem(Problem.BODY_TOO_LARGE))
            return
        if not self._memory.take(size):
            yield self._instead(answer_for_problem(Problem.MEMORY))
            return
        self._size += size
        self._body.append(body.body)
        if body.end_of_stream or self._in_one_piece:
            async for answer in self._choose():
                yield answer

    async def _choose(self, *, ends: bool = True) -> AsyncIterator[wire.ProcessingResponse]:
        """`ends`: the request is whole with its body."""
        request, tenant = self._request, self._tenant
        if request is None or tenant is None:
            self.over = True  # a body before its head: not a proxy that we can talk with
            return
        request.body = b"".join(self._body)
        chosen = await self._choices.choose(request, tenant)
        if isinstance(chosen, Answer):
            yield self._instead(chosen)
            return
        self._course = chosen
        self._body = []
        for answer in say.send_to(chosen.destination, self._request_mode, request.body, request.headers, ends=ends):
            yield answer

    def _instead(self, answer: Answer) -> wire.ProcessingResponse:
        self.over = True
        return say.answer_instead(answer)

    # --- the response -----------------------------------------------------------------------------------------------

    def _response_head(self, headers: wire.HttpHeaders) -> wire.ProcessingResponse:
        course = self._course
        if course is None:
            return say.go_on_with_response_head(())
        found = {one.key.lower().encode("latin-1"): one.raw_value for one in headers.headers.headers}
        course.answered(say.status_of(headers), found)
        self._whole = headers.end_of_stream
        return say.go_on_with_response_head([("x-foretide-revision", course.destination.revision)])

    def _response_body(self, body: wire.HttpBody) -> list[wire.ProcessingResponse]:
        if self._course is not None:
            self._course.data(body.body)
        self._whole = body.end_of_stream
        return list(say.go_on_with_response_body(body, self._response_mode))


async def _healthy(request: bytes, context: object) -> bytes:
    return _SERVING
