"""What the picker answers message by message, without an Envoy."""

from __future__ import annotations

from typing import cast

import grpc
import orjson

from gateway.catalog import Tenant
from gateway.endpoint_picker import ext_proc_pb2 as wire
from gateway.endpoint_picker.choices import Choices
from gateway.endpoint_picker.server import METHOD_SERVICE, EndpointPicker, _Talk
from gateway.errors import answer_for_problem
from gateway.http1.limits import MIB, ByteBudget, Problem
from gateway.http1.messages import Request


class _AnyTenant:
    def admit(self, request: Request) -> Tenant:
        return Tenant("acme", frozenset())


async def refused(talk: _Talk, body: bytes) -> wire.ProcessingResponse:
    """What is said to a body after a head."""
    head = wire.ProcessingRequest(request_headers=wire.HttpHeaders())
    assert [one.WhichOneof("response") async for one in talk.take(head)] == ["request_headers"]
    (answer,) = [one async for one in talk.take(wire.ProcessingRequest(request_body=wire.HttpBody(body=body)))]
    return answer


async def test_a_body_that_is_too_large_is_refused_as_the_gateway_itself_refuses_it() -> None:
    talk = _Talk(cast(Choices, _AnyTenant()), body_bytes=10, memory=ByteBudget(100))
    answer = await refused(talk, b"x" * 11)
    said, own = answer.immediate_response, answer_for_problem(Problem.BODY_TOO_LARGE)
    assert (said.status.code, orjson.loads(said.body)) == (413, orjson.loads(own.body))
    assert "x-request-id" not in [one.header.key for one in said.headers.set_headers]
    assert talk.over


async def test_bodies_of_all_requests_together_are_bounded_and_given_back() -> None:
    memory = ByteBudget(100)
    one, other, later = (_Talk(cast(Choices, _AnyTenant()), body_bytes=80, memory=memory) for _ in range(3))
    async for _ in one.take(wire.ProcessingRequest(request_body=wire.HttpBody(body=b"x" * 60))):
        raise AssertionError("nothing is said before the body is whole")
    answer = await refused(other, b"x" * 60)
    assert answer.immediate_response.status.code == 503
    assert other.over
    other.end()
    assert memory.held_bytes == 60
    one.end()
    async for _ in later.take(wire.ProcessingRequest(request_body=wire.HttpBody(body=b"x" * 60))):
        raise AssertionError("there is room again")
    later.end()
    assert memory.held_bytes == 0


async def test_a_body_that_comes_in_one_message_may_be_as_long_as_any() -> None:
    picker = EndpointPicker(cast(Choices, _AnyTenant()), 6 * MIB, ByteBudget(100 * MIB))
    port = await picker.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        process = channel.stream_stream(
            f"/{METHOD_SERVICE}/Process",
            request_serializer=wire.ProcessingRequest.SerializeToString,
            response_deserializer=wire.ProcessingResponse.FromString,
        )
        call = process()
        await call.write(wire.ProcessingRequest(request_headers=wire.HttpHeaders()))
        assert (await call.read()).HasField("request_headers")
        await call.write(wire.ProcessingRequest(request_body=wire.HttpBody(body=b"x" * 5 * MIB)))
        await call.write(wire.ProcessingRequest(request_body=wire.HttpBody(body=b"x" * 2 * MIB)))
        assert (await call.read()).immediate_response.status.code == 413, "seven are more than six"
    await picker.stop(0.0)
