"""`foretide simulate --prometheus`: one sentence where what is named there does not answer, or is something else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from cli import prometheus
from cli.errors import CliError
from cli.prometheus import client_of, read_range


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """Its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def said_of(url: str) -> str:
    with pytest.raises(CliError) as raised:
        read_range(client_of(url), url, "demo", "chat", 7200.0, 1.0)
    return str(raised.value)


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "[]",
        '{"status": "success"}',
        '{"data": {"result": 7}}',
        '{"data": {"result": [{"values": [7]}]}}',
        '{"data": {"result": [[]]}}',
    ],
)
def test_what_answers_something_else_is_no_prometheus(body: str) -> None:
    with answering(200, body) as url:
        assert said_of(url) == f"What answers at {url} is no Prometheus. Check --prometheus."


def test_a_status_that_is_no_answer_is_said() -> None:
    with answering(422, "too many points") as url:
        assert "422 (b'too many points')" in said_of(url)


def test_one_that_is_silent_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "ANSWERS_WITHIN_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "does not answer: Read timed out" in said_of(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_why_nobody_is_reached_is_said_whole() -> None:
    assert said_of("http://127.0.0.1:1").endswith("[Errno 111] Connection refused. Check --prometheus.")
    assert "Failed to resolve 'prometheus.invalid'" in said_of("http://prometheus.invalid")


@pytest.mark.parametrize("url", ["prometheus:9090", "http://[::1", ""])
def test_what_is_no_url_is_refused_with_one(url: str) -> None:
    with pytest.raises(CliError, match="a URL such as http://prometheus:9090 is needed"):
        client_of(url)
