"""A stand-in for a Prometheus server whose history is a curve: it shows a load that was never sent.

Answers `query_range` for the gateways' counters, as the operator asks, and nothing else. Runs on this machine, where
the pods of the local cluster reach it.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlparse

from crds import contract

Curve = Callable[[float], float]
"""Requests each second at a Unix time; each of them is one output token."""


class StandInPrometheus:
    """Listens on a free port of `address` inside the block; `stop` and `start` take it away and bring it back."""

    def __init__(self, address: str, curve: Curve) -> None:
        self._address, self._curve = address, curve
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://{self._address}:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """On the port it had before, if any."""
        curve = self._curve

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = {name: values[0] for name, values in parse_qs(urlparse(self.path).query).items()}
                body = json.dumps(_answer(asked, curve)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """The scenario's own report is enough."""

        self._server = ThreadingHTTPServer((self._address, self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="stand-in Prometheus", daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _answer(asked: dict[str, str], curve: Curve) -> Any:
    """`sum(increase(metric{…}[step]))` of the curve; nothing was ever put in, so input tokens are none."""
    start, end, step = (float(asked[name]) for name in ("start", "end", "step"))
    weight = 0.0 if contract.METRIC_GATEWAY_INPUT_TOKENS in asked["query"] else step
    times = [start + number * step for number in range(math.floor((end - start) / step) + 1)]
    values = [[at, str(weight * curve(at - step / 2))] for at in times]
    return {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": values}]}}


def daily_rise(rise_at_s: float, low: float, high: float, hours: float = 4.0) -> Curve:
    """`high` for some hours from `rise_at_s` on and at that time of every day before, else `low`; 3 % up and down."""

    def rate(at_s: float) -> float:
        level = high if (at_s - rise_at_s) % 86_400.0 < hours * 3600.0 else low
        return level * (1.0 + 0.03 * math.sin(at_s / 97.0))

    return rate
