"""The engine's end of the socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from worker_image.engine.messages import Cancel, EngineLoad, FrameBuffer, Progress, StepDone, encode
from worker_image.engine.process import Channel, ServerGone


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(theirs), ours


def test_a_server_that_does_not_read_holds_up_no_step(ends: tuple[Channel, socket.socket]) -> None:
    channel, server = ends
    steps = [StepDone(EngineLoad(steps=i), ids=list(range(500)), new_tokens=list(range(500))) for i in range(300)]
    for step in steps:
        channel.send(step)
    buffer, arrived = FrameBuffer(), []
    while len(arrived) < len(steps):
        arrived += buffer.feed(server.recv(1 << 16))
        channel.receive(wait=False)
    assert arrived == steps


def test_messages_are_taken_as_they_come(ends: tuple[Channel, socket.socket]) -> None:
    channel, server = ends
    assert channel.receive(wait=False) == []
    frame = encode(Cancel(1)) + encode(Cancel(2))
    server.sendall(frame[:-3])
    assert channel.receive(wait=True) == [Cancel(1)]
    server.sendall(frame[-3:])
    assert channel.receive(wait=True) == [Cancel(2)]


@pytest.mark.parametrize("sends", [False, True])
def test_a_server_that_is_gone_is_noticed(ends: tuple[Channel, socket.socket], sends: bool) -> None:
    channel, server = ends
    server.close()
    with pytest.raises(ServerGone):
        channel.send(Progress("weights", 1, 2)) if sends else channel.receive(wait=True)
