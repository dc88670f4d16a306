"""The admin port takes what is posted to a hook, within its bounds, and nothing elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
import pytest

from controllers.runtime.health import Health
from controllers.runtime.interface import Answer, Hook
from controllers.runtime.metrics import Metrics
from controllers.runtime.queue import ReconcileQueue
from controllers.runtime.server import AdminServer


async def echo(headers: Mapping[str, str], body: bytes) -> Answer:
    return Answer(200, f"{headers.get('authorization')} {len(body)}")


@pytest.mark.parametrize(
    ("path", "size", "status", "says"),
    [("/hook", 10, 200, "Bearer x 10"), ("/hook", 2_000, 413, ""), ("/metrics", 10, 405, ""), ("/other", 10, 404, "")],
)
async def test_a_hook_gets_headers_and_a_bounded_body(path: str, size: int, status: int, says: str) -> None:
    server = AdminServer("127.0.0.1", 0, Health(ReconcileQueue(), {}), Metrics(), hooks=(Hook("/hook", 1_000, echo),))
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            url, headers = f"http://127.0.0.1:{server.port}{path}", {"Authorization": "Bearer x"}
            async with session.post(url, data=b"x" * size, headers=headers) as answer:
                assert answer.status == status
                assert says in await answer.text()
    finally:
        await server.stop()
