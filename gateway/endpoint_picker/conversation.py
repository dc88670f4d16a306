"""What we say to Envoy about one HTTP request, message by message. Pure: no network, no clock, no choice of a worker.

Envoy sends the request's headers, then its body, then the response's headers and body. The head is answered at once
where the body comes buffered; where it comes as a full-duplex stream, the head waits for the choice, since nothing may
be changed in it after it was answered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from google.protobuf.struct_pb2 import Struct

from gateway.endpoint_picker import ext_proc_pb2 as wire
from gateway.endpoint_picker.choices import Destination
from gateway.http1.messages import Answer, Request

HEADER_DESTINATION = "x-gateway-destination-endpoint"
"""By the endpoint picker protocol: where the proxy shall send the request."""
_INSTRUCTIONS = b"x-foretide-"
METADATA_NAMESPACE = "envoy.lb"
BUFFERED = 2
FULL_DUPLEX_STREAMED = 4
PIECE_BYTES = 60 * 1024
"""Of a body that is sent back in pieces; Envoy takes 64 kB."""
_OVERWRITE = 2


def request_of(headers: wire.HttpHeaders) -> Request:
    """The head as our own code reads it; header names are lower case by HTTP/2, pseudo-headers are taken out."""
    found: dict[bytes, bytes] = {}
    for header in headers.headers.headers:
        name = header.key.lower().encode("latin-1")
        found[name] = found[name] + b", " + header.raw_value if name in found else header.raw_value
    method, target = found.pop(b":method", b""), found.pop(b":path", b"")
    regular = {name: value for name, value in found.items() if not name.startswith(b":")}
    return Request(method, target, regular, 1, keep_alive=True)


def status_of(headers: wire.HttpHeaders) -> int:
    """The status of a response's head; 0 where there is none."""
    text = next((one.raw_value for one in headers.headers.headers if one.key == ":status"), b"")
    return int(text) if text.isdigit() and len(text) <= 3 else 0


def go_on_with_request_head() -> wire.ProcessingResponse:
    return wire.ProcessingResponse(request_headers=wire.HeadersResponse(response=wire.CommonResponse()))


def send_to(
    destination: Destination, mode: int, body: bytes, asked: Iterable[bytes] = (), *, ends: bool = True
) -> Iterator[wire.ProcessingResponse]:
    """The answers that let the request go on to its worker. `asked`: the names of its client's headers; `ends`: no
    trailers follow its body."""
    mutation = wire.HeaderMutation(
        set_headers=[
            _set(HEADER_DESTINATION, destination.address.encode()),
            *(_set(name.decode("latin-1"), value) for name, value in destination.headers),
        ],
        remove_headers=_kept_back(asked, {name for name, _ in destination.headers}),
    )
    metadata = Struct()
    metadata.update({METADATA_NAMESPACE: {HEADER_DESTINATION: destination.address}})
    common = wire.CommonResponse(header_mutation=mutation, clear_route_cache=True)
    if mode == FULL_DUPLEX_STREAMED:
        yield wire.ProcessingResponse(request_headers=wire.HeadersResponse(response=common), dynamic_metadata=metadata)
        for piece in pieces(body, last=ends):
            yield wire.ProcessingResponse(
                request_body=wire.BodyResponse(response=wire.CommonResponse(body_mutation=piece))
            )
        return
    yield wire.ProcessingResponse(request_body=wire.BodyResponse(response=common), dynamic_metadata=metadata)


def _kept_back(asked: Iterable[bytes], ours: Collection[bytes]) -> list[str]:
    """Of the client's headers: a key is of no use to a worker, and what a worker takes for an instruction is said by
    us alone, since its port trusts its caller."""
    return ["authorization"] + [
        name.decode("latin-1") for name in asked if name.startswith(_INSTRUCTIONS) and name not in ours
    ]


def go_on_with_response_head(ours: Iterable[tuple[str, str]]) -> wire.ProcessingResponse:
    mutation = wire.HeaderMutation(set_headers=[_set(name, value.encode()) for name, value in ours])
    return wire.ProcessingResponse(
        response_headers=wire.HeadersResponse(response=wire.CommonResponse(header_mutation=mutation))
    )


def go_on_with_response_body(body: wire.HttpBody, mode: int) -> Sequence[wire.ProcessingResponse]:
    """Nothing of it is changed: said once, or by sending it back where the stream is ours to write."""
    if mode != FULL_DUPLEX_STREAMED:
        return [wire.ProcessingResponse(response_body=wire.BodyResponse(response=wire.CommonResponse()))]
    return [
        wire.ProcessingResponse(response_body=wire.BodyResponse(response=wire.CommonResponse(body_mutation=piece)))
        for piece in pieces(body.body, last=body.end_of_stream)
    ]


def pieces(body: bytes, *, last: bool) -> Iterator[wire.BodyMutation]:
    """A body, or a part of one, in pieces that Envoy takes; an empty one is one empty piece."""
    starts = range(0, max(len(body), 1), PIECE_BYTES)
    for start in starts:
        end = last and start == starts[-1]
        piece = wire.StreamedBodyResponse(body=body[start : start + PIECE_BYTES], end_of_stream=end)
        yield wire.BodyMutation(streamed_response=piece)


def answer_instead(answer: Answer) -> wire.ProcessingResponse:
    """The request ends here, with this answer."""
    headers = [_set("content-type", answer.content_type)] if answer.body else []
    headers += [_set(name.decode("latin-1"), value) for name, value in answer.headers]
    immediate = wire.ImmediateResponse(
        status=wire.HttpStatus(code=answer.status),
        headers=wire.HeaderMutation(set_headers=headers),
        body=answer.body,
        details="foretide",
    )
    return wire.ProcessingResponse(immediate_response=immediate)


def _set(name: str, value: bytes) -> wire.HeaderValueOption:
    return wire.HeaderValueOption(header=wire.HeaderValue(key=name, raw_value=value), append_action=_OVERWRITE)
