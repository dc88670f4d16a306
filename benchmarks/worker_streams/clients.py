"""Many streaming clients in one process that do as little as they can: send, read, count, until [DONE]."""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Callable
from typing import Final

LIMIT_S: Final = 120.0
REQUEST: Final = json.dumps(
    {"model": "bench", "stream": True, "max_tokens": 4000, "messages": [{"role": "user", "content": "w1 w2 w3 w4"}]}
).encode()


def connect(port: int, n_streams: int) -> list[socket.socket]:
    """All connected, each with its request sent."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % len(REQUEST)
    sockets = []
    for _ in range(n_streams):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(head + REQUEST)
        sock.setblocking(False)
        sockets.append(sock)
    return sockets


def drain(sockets: list[socket.socket], on_first_token: Callable[[], None]) -> int:
    """Reads all to their ends; the bytes read. `on_first_token` is called once, when tokens begin to flow."""
    selector = selectors.DefaultSelector()
    for sock in sockets:
        selector.register(sock, selectors.EVENT_READ)
    n_open, n_bytes, begun, deadline = len(sockets), 0, False, time.monotonic() + LIMIT_S
    while n_open:
        assert time.monotonic() < deadline, f"{n_open} streams have not ended within {LIMIT_S:g} s"
        for key, _ in selector.select(1.0):
            piece = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
            assert piece, "the server closed a stream amid it"
            n_bytes += len(piece)
            if not begun and b'"content":" w' in piece:
                begun = True
                on_first_token()
            if b"[DONE]" in piece:
                selector.unregister(key.fileobj)
                n_open -= 1
    for sock in sockets:
        sock.close()
    return n_bytes
