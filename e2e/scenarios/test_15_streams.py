"""Streams of a real model through a real client while what carries them is taken away; and callers who mean no good."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from e2e.install import SYSTEM
from e2e.scenarios.world import World, until

Measured = Callable[[str, str], None]
COUNTING: Any = [{"role": "user", "content": "Count from one to forty in words, separated by commas."}]
GREEDY = {"temperature": 0}
SEEDED = {"temperature": 0.8, "seed": 7}
_LOAD = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/load', timeout=5).read().decode())"


def pieces(world: World, model: str, **options: Any) -> Iterator[str]:
    """The texts of one stream as they come; ends only if the stream is whole."""
    stream = world.client().chat.completions.create(
        model=model, messages=COUNTING, max_tokens=40, stream=True, **options
    )
    finish = None
    for chunk in stream:
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            if choice.delta.content:
                yield choice.delta.content
    assert finish in ("stop", "length")


def at_work(world: World, service: str) -> str:
    """The worker that runs something just now."""
    for pod in world.pods(service):
        name = str(pod["metadata"]["name"])
        told = json.loads(world.kubectl("-n", "demo", "exec", name, "--", "python3", "-c", _LOAD))
        if told["running"]:
            return name
    return ""


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_a_worker_killed_amid_a_stream_changes_no_word_of_it(
    world: World, measured: Measured, sampling: dict[str, Any]
) -> None:
    with world.serving("outlived", replicas=2):
        world.rolled("outlived", 2)
        undisturbed = "".join(pieces(world, "outlived", **sampling))
        seen, gaps_s, doomed, last_s = [], [], "", time.monotonic()
        for piece in pieces(world, "outlived", **sampling):
            gaps_s.append(time.monotonic() - last_s)
            seen.append(piece)
            if len(seen) == 6:
                doomed = until(lambda: at_work(world, "outlived"), "the worker of the stream")
                world.kill(doomed, "demo")
            last_s = time.monotonic()
        assert doomed
        assert "".join(seen) == undisturbed
        measured("worker killed amid a stream → the next token", f"{max(gaps_s[6:]):.2f} s")


def test_open_streams_end_whole_while_all_gateways_are_replaced(world: World, measured: Measured) -> None:
    with world.serving("carried", replicas=1):
        expected = "".join(pieces(world, "carried", **GREEDY))
        found: list[str] = []
        begun = threading.Event()

        def read() -> None:
            text = ""
            for piece in pieces(world, "carried", **GREEDY):
                text += piece
                begun.set()
            found.append(text)

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        assert begun.wait(60)
        started_s = time.monotonic()
        world.kubectl("-n", SYSTEM, "rollout", "restart", "deployment/foretide-gateway")
        world.kubectl("-n", SYSTEM, "rollout", "status", "deployment/foretide-gateway", "--timeout=180s")
        measured("gateways replaced under an open stream", f"{time.monotonic() - started_s:.1f} s")
        reading.join(120)
        assert found == [expected]
        until(lambda: world.ask("carried"), "the new gateways answer")


def test_callers_who_mean_no_good_get_clear_refusals_and_hurt_nobody(world: World, measured: Measured) -> None:
    place = urlsplit(world.url)
    address = (str(place.hostname), int(place.port or 80))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.keys['acme']}\r\n".encode()
    with world.serving("unhurt", replicas=1), ExitStack() as open_ones:
        usual_s = _timed(lambda: world.ask("unhurt"))
        for _ in range(100):  # half-open: a head that never ends
            half = open_ones.enter_context(socket.create_connection(address, 10))
            half.sendall(head)
        body = json.dumps({"model": "unhurt", "messages": COUNTING, "max_tokens": 400, "stream": True}).encode()
        for _ in range(4):  # asks for a long stream and reads nothing of it
            slow = open_ones.enter_context(socket.create_connection(address, 10))
            slow.sendall(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        assert _status(address, head + b"".join(b"x-%d: %b\r\n" % (i, b"y" * 4000) for i in range(100))) == 431
        assert _status(address, head + b"Content-Length: 1000000000\r\n\r\n") == 413
        assert _status(address, b"\x16\x03\x01 nonsense\r\n\r\n") == 400
        beside_s = _timed(lambda: world.ask("unhurt"))
        measured("an answer alone, and beside callers who mean no good", f"{usual_s:.1f} s, {beside_s:.1f} s")
    page = world.kubectl("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{_gateway(world)}:8081/proxy/metrics")
    resident = next(line for line in page.splitlines() if line.startswith("process_resident_memory_bytes "))
    assert float(resident.split()[1]) < 200e6


def _timed(ask: Callable[[], str]) -> float:
    began_s = time.monotonic()
    assert ask()
    return time.monotonic() - began_s


def _status(address: tuple[str, int], data: bytes) -> int:
    """Of the answer to exactly these bytes."""
    with socket.create_connection(address, 20) as one:
        one.settimeout(20)
        one.sendall(data)
        return int(one.recv(64).split()[1])


def _gateway(world: World) -> str:
    found = world.select("pods", "app.kubernetes.io/name=foretide-gateway", SYSTEM)
    return str(found[0]["metadata"]["name"])
