"""What a worker logs about a request says which request it is about."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from crds.log_lines import JsonFormatter
from tests.worker_image.scripted import a_server
from worker_image.server.errors import CLIENT_LEFT, answer_for

TRACED = {"x-request-id": "abc-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}


class Lines(logging.Handler):
    """Keeps them as they would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


async def test_a_request_that_fails_unexpectedly_is_logged_with_its_id_and_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks() -> None:
        raise RuntimeError("a mistake of ours")

    logger, kept = logging.getLogger("worker_image.server.errors"), Lines()
    logger.addHandler(kept)
    try:
        async with a_server(tmp_path, lambda add, number: "hello") as server, aiohttp.ClientSession(server.url) as http:
            monkeypatch.setattr(server.state, "served", breaks)
            for headers in (TRACED, {"x-request-id": "abc-2"}):
                async with http.get("/v1/models", headers=headers) as answer:
                    assert answer.status == 500
                    assert answer.headers["x-request-id"] == headers["x-request-id"]
    finally:
        logger.removeHandler(kept)
    first, second = kept.lines
    assert (first["request_id"], first["trace_id"]) == ("abc-1", "a" * 32)
    assert "a mistake of ours" in first["exception"]
    assert second["request_id"] == "abc-2"
    assert "trace_id" not in second


def test_a_client_that_has_left_is_no_failure_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    answer = answer_for(aiohttp.ClientConnectionResetError("Cannot write to closing transport"))
    assert answer.status == CLIENT_LEFT
    assert not caplog.records
