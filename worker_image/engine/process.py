"""The engine process: `python -m worker_image.engine.process FD`, started by `engine.client`.

Its one loop takes messages from the socket, steps while there is work, and sends back tokens. It ends when the
other side of the socket does, so that no engine outlives its server. HTTP and text never enter this interpreter.
"""

from __future__ import annotations

import contextlib
import gc
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from crds.contract import WORKER_EXIT_REFUSED
from worker_image.checkpoint.open import open_checkpoint
from worker_image.engine.memory import check_weights, free_memory_bytes
from worker_image.engine.messages import (
    Add,
    Cancel,
    Device,
    EngineSettings,
    Failed,
    FrameBuffer,
    Message,
    Start,
    StepDone,
    encode,
)
from worker_image.errors import WorkerError

if TYPE_CHECKING:
    from worker_image.engine.core import Engine

RECEIVE_BYTES = 1 << 20
CPU_ELEMENT_BYTES = 4
"""Of float32, in which a CPU computes."""
BURST_S = 0.02
"""The most that a step waits for requests that are coming in."""


class ServerGone(Exception):
    """The server closed its end; there is nobody to work for."""


class Channel:
    """The engine's end of the socket. A server that reads slowly does not hold up a step: what it does not take waits
    here, and can be no more than the answers to its open requests."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._frames = FrameBuffer()
        self._outgoing = bytearray()

    def send(self, message: Message) -> None:
        """Raises ServerGone."""
        self._outgoing += encode(message)
        self._push()

    def flush(self) -> None:
        """Until the server has taken everything. Raises ServerGone."""
        while self._outgoing:
            select.select([], [self._socket], [])
            self._push()

    def _push(self) -> None:
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            raise ServerGone from None

    def receive(self, *, wait: bool) -> list[Message]:
        """What has arrived and keeps arriving; with `wait`, blocks until something has. Raises ServerGone."""
        readable: list[socket.socket] = []
        while not readable:
            writing = [self._socket] if self._outgoing else []
            readable, writable, _ = select.select([self._socket], writing, [], None if wait else 0)
            if writable:
                self._push()
            if not wait and not readable:
                return []
        messages = self._frames.feed(self._piece())
        # The socket holds only some 200 kB: without this, a burst of long prompts would come in over a dozen steps.
        ends_at = time.monotonic() + BURST_S
        while time.monotonic() < ends_at and select.select([self._socket], [], [], 0)[0]:
            messages += self._frames.feed(self._piece())
        return messages

    def _piece(self) -> bytes:
        try:
            piece = self._socket.recv(RECEIVE_BYTES)
        except ConnectionResetError:
            raise ServerGone from None
        if not piece:
            raise ServerGone
        return piece


def serve(channel: Channel) -> NoReturn:
    messages: list[Message] = []
    while not messages:
        messages = channel.receive(wait=True)
    start, *early = messages
    assert isinstance(start, Start), "the server's first message says what to load"
    engine = load(channel, start.settings)
    # What no image brought along is compiled now: who is sent to a ready worker should not wait for it.
    engine.prepare()
    engine.on_long_step(channel.send)
    channel.send(engine.ready)
    messages = early
    while True:
        for message in messages:
            match message:
                case Add():
                    engine.add(message)
                case Cancel(request_id):
                    engine.cancel(request_id)
        channel.send(engine.step() if engine.has_work else StepDone(engine.load))
        messages = channel.receive(wait=False)
        while not messages and not engine.has_work:
            messages = channel.receive(wait=not engine.prepare())


def load(channel: Channel, settings: EngineSettings) -> Engine:
    """Raises CheckpointError or SettingsError."""
    checkpoint = open_checkpoint(Path(settings.model_path), settings.load_format)
    if settings.device is Device.CPU:
        check_weights(checkpoint.config, CPU_ELEMENT_BYTES, free_memory_bytes())
    try:
        checkpoint.prefetch(settings.n_threads)
        # Importing torch takes seconds: the weights are decoded meanwhile, and without the garbage collector, which
        # would walk a million objects that stay, it takes a quarter less.
        gc.disable()
        from worker_image.engine.loading import load_engine

        engine = load_engine(checkpoint, settings, channel.send)
    finally:
        # Where it failed, too: the process would not end before all that is left has been read.
        checkpoint.close()
    gc.freeze()
    gc.enable()
    return engine


def main() -> int:
    # Ctrl-C reaches the whole process group; only the server decides when the engine ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    try:
        serve(channel)
    except ServerGone:
        return 0
    except WorkerError as error:
        # The server may have refused the checkpoint first, for its own half of the reasons.
        with contextlib.suppress(ServerGone):
            channel.send(Failed(str(error)))
            channel.flush()
        return WORKER_EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
