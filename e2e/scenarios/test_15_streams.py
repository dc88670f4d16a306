"""Streams of a real model through a real client while what carries them is taken away; and callers who mean no good."""

from __future__ import annotations

import json
import re
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
LONG = 150
"""Tokens of an answer that must not end before somebody had time to disturb it."""
LONGEST = 400
"""The same where a kubectl has to come first."""


class Answering:
    """One stream on its way: what has come of it, and which worker it is from."""

    def __init__(self, world: World, model: str, tokens: int, **options: Any) -> None:
        raw = world.client().chat.completions.with_raw_response.create(
            model=model,
            messages=COUNTING,
            max_tokens=tokens + 10,
            stream=True,
            extra_body={"min_tokens": tokens},  # Beside OpenAI's own options.
            extra_headers={"x-foretide-explain": "true"},
            **options,
        )
        found = re.search(rf"\b{model}-[0-9a-f]+-[0-9a-z]+-[0-9a-z]+\b", raw.headers["x-foretide-decision"])
        assert found, raw.headers["x-foretide-decision"]
        self.worker = found[0]
        self._stream = raw.parse()

    def pieces(self) -> Iterator[str]:
        """The texts as they come; ends only if the stream is whole."""
        finish = None
        for chunk in self._stream:
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                if choice.delta.content:
                    yield choice.delta.content
        assert finish in ("stop", "length")


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_a_worker_killed_amid_a_stream_changes_no_word_of_it(
    world: World, measured: Measured, sampling: dict[str, Any]
) -> None:
    with world.serving("outlived", replicas=2):
        world.rolled("outlived", 2)
        undisturbed = "".join(Answering(world, "outlived", LONGEST, **sampling).pieces())
        answering = Answering(world, "outlived", LONGEST, **sampling)
        text, longest_s, last_s, killing = "", 0.0, time.monotonic(), None
        for piece in answering.pieces():
            longest_s = max(longest_s, time.monotonic() - last_s) if killing else 0.0
            text += piece
            if killing is None:
                killing = threading.Thread(target=world.kill, args=(answering.worker, "demo"))
                killing.start()
            last_s = time.monotonic()
        assert killing is not None
        killing.join()
        assert text == undisturbed
        moved = sum(moved_streams(world, pod) for pod in gateways(world))
        measured("worker killed amid a stream: longest wait for a token", f"{longest_s:.2f} s, {moved:g} moved so far")
        assert moved > 0


def test_open_streams_end_whole_while_all_gateways_are_replaced(world: World, measured: Measured) -> None:
    with world.serving("carried", replicas=1):
        expected = "".join(Answering(world, "carried", LONG, **GREEDY).pieces())
        found: list[str] = []
        begun = threading.Event()

        def read() -> None:
            text = ""
            for piece in Answering(world, "carried", LONG, **GREEDY).pieces():
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
    for pod in gateways(world):
        assert gateway_metric(world, pod, "process_resident_memory_bytes") < 200e6


def gateways(world: World) -> list[str]:
    """Their pods."""
    found = world.select("pods", "app.kubernetes.io/name=foretide-gateway", SYSTEM)
    return [str(pod["metadata"]["name"]) for pod in found if "deletionTimestamp" not in pod["metadata"]]


def gateway_metric(world: World, pod: str, name: str) -> float:
    """The sum of a metric's samples; 0 without any."""
    page = world.kubectl("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{pod}:8081/proxy/metrics")
    lines = [line for line in page.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def moved_streams(world: World, pod: str) -> float:
    return gateway_metric(world, pod, "foretide_gateway_moved_streams_total")


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
