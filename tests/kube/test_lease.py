import contextlib
import http.server
import itertools
import queue
import threading
import time
from collections.abc import Iterator, Sequence

import orjson
import pytest

from kube.connection import Connection
from kube.elector import Elector
from kube.errors import Throttled, Unavailable, Unreachable
from kube.lease import LeaseCalls, Sighting, Step, StoredLease, Timing, next_step
from tests.waiting import eventually_blocking

TIMING = Timing(lease_s=6, renew_s=4, retry_s=1)


@pytest.mark.parametrize(
    ("sighting", "now_s", "step"),
    [
        (None, 0.0, Step.CREATE),
        (Sighting("me", "1", 0.0), 100.0, Step.RENEW),
        (Sighting("", "1", 0.0), 0.0, Step.TAKE),
        (Sighting("other", "1", 10.0), 16.0, Step.WAIT),
        (Sighting("other", "1", 10.0), 16.1, Step.TAKE),
    ],
)
def test_a_candidate_waits_the_whole_lease_after_the_last_change_it_saw(
    sighting: Sighting | None, now_s: float, step: Step
) -> None:
    assert next_step(sighting, "me", now_s, TIMING) is step


def test_a_renewal_by_the_holder_starts_the_wait_anew() -> None:
    seen = Sighting("other", "1", 10.0)
    assert seen.seen_again("other", "1", 15.0).unchanged_since_s == 10.0
    assert seen.seen_again("other", "2", 15.0).unchanged_since_s == 15.0


def test_a_timing_in_which_two_could_lead_is_refused() -> None:
    with pytest.raises(ValueError, match="retry_s < renew_s < lease_s"):
        Timing(lease_s=4, renew_s=6, retry_s=1)


def test_a_candidate_that_meets_what_it_does_not_know_says_so_and_does_not_stand_aside_in_silence() -> None:
    def token() -> str:
        raise ValueError("the login plugin printed nonsense")  # Whatever a kubeconfig's plugin comes to.

    said: queue.Queue[str] = queue.Queue()
    elector = Elector(
        Connection("http://127.0.0.1:1", None, token),
        namespace="default",
        name="lease",
        identity="me",
        on_acquired=lambda: said.put("leads"),
        on_lost=said.put,
    )
    elector.start()
    assert said.get(timeout=60) == "'me' lost the lease 'default/lease': ValueError: the login plugin printed nonsense"
    assert not elector.is_leader()


@pytest.mark.parametrize(
    ("holder", "after_s", "within_s"), [("", 0.0, 2.0), ("other", Timing().lease_s, 10.0)], ids=["stopped", "killed"]
)
def test_a_standby_replaces_who_stopped_within_two_seconds_and_who_was_killed_within_ten(
    monkeypatch: pytest.MonkeyPatch, holder: str, after_s: float, within_s: float
) -> None:
    now_s, stored, led_s = 0.0, StoredLease("other", "1", 0), list[float]()

    class Waiting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal now_s, stored
            stored = StoredLease(holder, "2", 0)  # The leader's last word, right after the standby looked.
            now_s += timeout or 0.0
            assert now_s < 60
            return self.is_set()

    def lead() -> None:
        led_s.append(now_s)
        elector._stop.set()

    elector = Elector(
        Connection("http://127.0.0.1:1", None, lambda: None),
        namespace="demo",
        name="lease",
        identity="me",
        on_acquired=lead,
        on_lost=lambda why: None,
        clock=lambda: now_s,
    )
    elector._stop = Waiting()
    monkeypatch.setattr(elector._calls, "get", lambda: stored)
    monkeypatch.setattr(elector._calls, "update", lambda _: StoredLease("me", "3", 1))
    elector._run()
    (took_s,) = led_s
    assert after_s < took_s < within_s


class Server:
    """Answers (status, body, Retry-After) one after the other, the last again and again."""

    def __init__(self, answers: Sequence[tuple[int, bytes, str]]) -> None:
        self.asked: list[tuple[float, str, str]] = []
        self.connections = 0
        waiting = itertools.chain(answers, itertools.repeat(answers[-1]))

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(handler) -> None:
                self.connections += 1
                super().setup()

            def answer(handler) -> None:
                handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
                self.asked.append((time.monotonic(), handler.command, handler.path))
                status, body, retry_after = next(waiting)
                handler.send_response(status)
                if retry_after:
                    handler.send_header("Retry-After", retry_after)
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            do_GET = do_POST = do_PUT = answer

            def log_message(handler, *arguments: object) -> None:
                """Silent."""

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()


def connection_to(server: Server, path: str = "") -> Connection:
    return Connection(server.url + path, None, lambda: None)


LEASE = orjson.dumps({"metadata": {"resourceVersion": "7"}, "spec": {"holderIdentity": "other"}})


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (502, b'{"message": "bad gateway", "details": "upstream"}', Unavailable, "answered 502 .+: bad gateway"),
        (502, b"[1]", Unavailable, "answered 502 without a reason: no message"),
        (503, b'{"details": {"retryAfterSeconds": "soon"}}', Unavailable, "answered 503"),
        (429, b"Too many requests.\n", Throttled, "answered 429 without a reason: Too many requests"),
        (200, b"<html>hello</html>", Unreachable, "is no Lease"),
        (200, b"[]", Unreachable, "is no Lease"),
        (200, b'{"kind": "Lease"}', Unreachable, "is no Lease"),
        (200, b'{"metadata": {"resourceVersion": "1"}, "spec": "none"}', Unreachable, "is no Lease"),
        (200, b'{"metadata": {"resourceVersion": "1"}, "spec": {"leaseTransitions": 1e999}}', Unreachable, "no Lease"),
    ],
)
def test_an_odd_answer_is_an_error_of_ours_and_costs_no_connection(
    status: int, body: bytes, kind: type[Exception], said: str
) -> None:
    server = Server([(status, body, "5"), (200, LEASE, "")])
    calls = LeaseCalls(connection_to(server), "demo", "lease", 5.0)
    with server.running():
        with pytest.raises(kind, match=said) as caught:
            calls.get()
        found = calls.get()
        calls.close()
    assert found
    assert (found.holder, found.resource_version, found.transitions) == ("other", "7", 0)
    assert server.connections == 1
    assert getattr(caught.value, "retry_after_s", 5.0) == 5.0


def elector_at(server: Server, *, retry_s: float) -> Elector:
    return Elector(
        connection_to(server),
        namespace="demo",
        name="lease",
        identity="me",
        on_acquired=lambda: None,
        on_lost=lambda why: None,
        timing=Timing(lease_s=60, renew_s=40, retry_s=retry_s),
    )


def test_a_candidate_leaves_a_server_alone_for_as_long_as_it_asks() -> None:
    server = Server([(429, b"slow down", "2"), (200, LEASE, "")])
    elector = elector_at(server, retry_s=0.5)
    with server.running():
        elector.start()
        eventually_blocking(lambda: len(server.asked) > 1, "the second look")
        elector.stop()
    assert server.asked[1][0] - server.asked[0][0] >= 2.0


def test_a_lease_is_looked_for_below_the_path_of_a_proxy() -> None:
    server = Server([(200, LEASE, "")])
    calls = LeaseCalls(connection_to(server, "/k8s/clusters/c-1"), "demo", "lease", 5.0)
    with server.running():
        calls.get()
        calls.close()
    path = "/k8s/clusters/c-1/apis/coordination.k8s.io/v1/namespaces/demo/leases/lease"
    assert [one[1:] for one in server.asked] == [("GET", path)]


def test_a_namespace_that_is_not_there_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    server = Server([(404, b'{"reason": "NotFound", "message": "namespaces \\"demo\\" not found"}', "")])
    elector = elector_at(server, retry_s=0.3)
    caplog.set_level("INFO")
    with server.running():
        elector.start()
        eventually_blocking(lambda: [one[1] for one in server.asked].count("POST") > 2, "the third attempt")
        elector.stop()
    (told,) = [one for one in caplog.records if "404" in one.getMessage()]
    assert told.levelname == "WARNING"
    assert "cannot be made, so nobody leads: is there a namespace 'demo'?" in told.getMessage()
