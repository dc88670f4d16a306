"""The two system corners that both sides of the proxy need: starting a task, and noticing a peer that vanished."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Coroutine
from typing import Any

if sys.version_info >= (3, 12):

    def start_task(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """Starts in the same breath where Python can (3.12 and later), which spares a turn of the loop per request."""
        return asyncio.Task(work, loop=loop, eager_start=True)

else:

    def start_task(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """Starts with the next turn of the loop."""
        return asyncio.Task(work, loop=loop)


def probe_when_silent(transport: asyncio.Transport) -> None:
    """A peer whose machine vanished sends no FIN: the kernel asks after 10 s of silence and gives up after 9 more."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
