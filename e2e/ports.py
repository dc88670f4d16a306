"""Ports for processes that are told where to listen, here and in `benchmarks` and `tests`."""

import random
import socket
from contextlib import ExitStack, suppress

PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to outgoing connections at any moment."""


def free_ports(count: int) -> list[int]:
    """All different, and nobody listens on any. Each is held until all are chosen, so that none comes twice."""
    free: list[int] = []
    with ExitStack() as held:
        # Whatever a test has done to the common generator, two processes shall not draw the same.
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):
            with suppress(OSError):
                held.enter_context(socket.create_server(("", port)))
                free.append(port)
            if len(free) == count:
                return free
    raise OSError(f"{len(free)} of {count} ports between {PORTS[0]} and {PORTS[-1]} are free")


def free_port() -> int:
    """For one that needs no other; two calls may give the same."""
    (port,) = free_ports(1)
    return port
