"""`foretide chat`: a gateway of loopback is asked as a client would, and what it says is shown or explained."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.chat import talk, turns
from cli.completions import Model, clean
from cli.errors import CliError
from cli.main import app
from tests.cli.cluster import demo

ANSWER = [{"delta": {"role": "assistant"}}, {"delta": {"content": "Bonjour"}}, {"delta": {"content": "\x1b[2J, world"}}]


def events(*choices: Any, end: str = "data: [DONE]\n\n") -> str:
    return ": still here\n\n" + "".join(f"data: {json.dumps({'choices': [each]})}\n\n" for each in choices) + end


@contextmanager
def gateway(status: int, body: str, **headers: str) -> Iterator[tuple[int, list[Any]]]:
    """Its port, and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers["Authorization"], json.loads(sent)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(*options: str, given: str | None = None) -> Result:
    arguments = ["chat", "chat", *options]
    return CliRunner().invoke(app, arguments, obj=demo(), input=given, catch_exceptions=False)


def at(port: int) -> tuple[str, ...]:
    return ("--url", f"http://127.0.0.1:{port}/v1", "--key", "k-1")


def test_an_answer_is_shown_and_cannot_steer_the_terminal() -> None:
    with gateway(200, events(*ANSWER)) as (port, asked):
        shown = ask("Hello", *at(port), "--system", "Be brief.", "--max-tokens", "9")
    assert shown.stdout == "Bonjour[2J, world\n"
    ((path, authorization, body),) = asked
    assert (path, authorization) == ("/v1/chat/completions", "Bearer k-1")
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert (body["model"], body["max_tokens"], body["stream"]) == ("chat", 9, True)


def test_each_line_is_a_turn_that_knows_those_before() -> None:
    with gateway(200, events({"delta": {"content": "yes"}})) as (port, asked):
        ask(*at(port), given="one\n\ntwo\n")
    assert [[each["content"] for each in body["messages"]] for _, _, body in asked] == [["one"], ["one", "yes", "two"]]


def test_an_input_that_cannot_be_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CliError, match="The input cannot be read: 'utf-8' codec"):
        CliRunner().invoke(app, ["chat", "chat", *at(1)], obj=demo(), input=b"\xff\n", catch_exceptions=False)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(CliError, match="neither a prompt nor an input"):
        talk(Model("", "", "", None), [], turns(None))


def test_a_fallback_and_a_cut_are_told_beside_the_answer() -> None:
    last = {"delta": {"content": "y"}, "finish_reason": "length"}
    with gateway(200, events(last), x_foretide_fallback="demo/chat-small; reason=no_endpoint") as (port, _):
        shown = ask("Hello", *at(port))
    assert shown.stdout == "y\n"
    assert "Answered by a fallback: demo/chat-small; reason=no_endpoint" in shown.stderr
    assert "cut off" in shown.stderr


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, '{"error": {"message": "The key is not valid."}}', "answered 401: The key is not valid."),
        (503, "busy", "answered 503: busy"),
        (302, "", "answered 302: nothing more was said"),
        (200, events(end=""), "ended without its end mark"),
        (200, events(end='data: {"error": {"message": "worker lost"}}\n\n'), "broke off: worker lost"),
        (200, "data: {no\n\n", "no JSON"),
    ],
)
def test_an_answer_that_is_none_says_what_came(status: int, body: str, says: str) -> None:
    with gateway(status, body) as (port, _), pytest.raises(CliError) as raised:
        ask("Hello", *at(port))
    assert says in str(raised.value)


def test_what_is_missing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(CliError, match="set OPENAI_API_KEY"):
        ask("Hello")
    with pytest.raises(CliError, match="--url is 'localhost'"):
        ask("Hello", "--key", "k", "--url", "localhost")
    with pytest.raises(CliError, match=r"does not answer: .*refused\. Check --url"):
        ask("Hello", *at(1))


@pytest.mark.parametrize("key", ["sk-1\r\nsk-2", "sk-\x00", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_neither_sent_nor_shown(key: str) -> None:
    with pytest.raises(CliError) as raised:
        ask("Hello", "--url", "http://127.0.0.1:1/v1", "--key", key)
    assert "not sent" in str(raised.value)
    assert key not in str(raised.value)


def test_the_line_end_of_a_file_is_no_part_of_its_key() -> None:
    with gateway(200, events(*ANSWER)) as (port, asked):
        ask("Hello", "--url", f"http://127.0.0.1:{port}/v1", "--key", "k-1\r\n")
    assert asked[0][1] == "Bearer k-1"


@pytest.mark.parametrize("url", ["http://[::1/v1", "http://:80/v1", "http://here:many/v1", "ftp://here/v1"])
def test_what_is_no_url_is_refused_with_one(url: str) -> None:
    with pytest.raises(CliError, match="a URL such as http://localhost:8080/v1 is needed"):
        ask("Hello", "--url", url, "--key", "k")


def test_an_error_that_breaks_off_still_has_its_status() -> None:
    with gateway(503, "short", Content_Length="1000") as (port, _), pytest.raises(CliError, match="answered 503"):
        ask("Hello", *at(port))


def kubectl_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "kubectl"
    program.write_text(f"#!{sys.executable}\nimport sys, time\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def test_without_a_url_the_gateway_is_reached_through_a_port_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gateway(200, events(*ANSWER)) as (port, _):
        note = f"open({str(tmp_path / 'asked')!r}, 'w').write(' '.join(sys.argv[1:]))"
        ready = f"print('Forwarding from 127.0.0.1:{port} -> 8080', flush=True)"
        kubectl_that(tmp_path, monkeypatch, f"{note}\n{ready}\ntime.sleep(60)")
        assert ask("Hello", "--key", "k").stdout.startswith("Bonjour")
    asked = (tmp_path / "asked").read_text()
    assert asked == "-n foretide-system port-forward service/foretide-gateway :http --address=127.0.0.1"


def test_a_port_forward_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl_that(
        tmp_path, monkeypatch, "sys.exit('Error from server (NotFound): services \"foretide-gateway\" not found')"
    )
    with pytest.raises(CliError, match="not found"):
        ask("Hello", "--key", "k")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(CliError, match="no kubectl on the PATH"):
        ask("Hello", "--key", "k")


def test_control_characters_go_and_letters_of_all_scripts_stay() -> None:
    assert clean("a\x07b\x9b1m\n\té 漢 👩‍🚀") == "ab1m\n\té 漢 👩‍🚀"
