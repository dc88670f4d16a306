"""History from a Prometheus server: chunks, gaps, and what it says when the server is away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from controllers.history import prometheus
from controllers.history.interface import HistoryUnavailable, ServiceId
from controllers.history.prometheus import AT_ONCE, CHUNK_STEPS, PrometheusHistory, chunks, samples_in

CHAT = ServiceId("demo", "chat")
T0 = 1_800_000_000.0 // 600 * 600


class Server:
    """The part of Prometheus' HTTP API that is asked: a value that grows by 600 a step, and is missing at times."""

    def __init__(self) -> None:
        self.queries: list[dict[str, str]] = []
        self.missing: set[float] = set()
        self.status = 200
        self.headers: dict[str, str] = {}

    async def query_range(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        self.queries.append(query)
        if self.status != 200:
            error = {"status": "error", "error": "too many samples"}
            return web.json_response(error, status=self.status, headers=self.headers)
        start, end, step = (float(query[name]) for name in ("start", "end", "step"))
        times = [start + number * step for number in range(int((end - start) / step) + 1)]
        values = [[at, str((at - T0) / step)] for at in times if at not in self.missing]
        result = [{"metric": {}, "values": values}] if values else []
        return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": result}})


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[PrometheusHistory]:
    app = web.Application()
    app.router.add_get("/api/v1/query_range", server.query_range)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    history = PrometheusHistory(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield history
    finally:
        history.close()
        await runner.cleanup()


async def test_the_increase_of_each_step_is_read_where_the_step_ends() -> None:
    server = Server()
    async with serving(server) as history:
        got = await history.read(CHAT, T0, T0 + 1800, 600)
    assert got.arrivals.tolist() == [1.0, 2.0, 3.0]
    assert len(server.queries) == 4
    assert server.queries[0] == {
        "query": 'sum(increase(foretide_gateway_arrivals_total{namespace="demo",service="chat"}[600s]))',
        "start": str(round(T0 + 600)),
        "end": str(round(T0 + 1800)),
        "step": "600",
    }


async def test_a_missing_sample_is_a_gap_and_no_series_is_nothing_but_gaps() -> None:
    server = Server()
    server.missing = {T0 + 1200}
    async with serving(server) as history:
        got = await history.read(CHAT, T0, T0 + 1800, 600)
        server.missing |= {T0 + 600, T0 + 1800}
        nothing = await history.read(CHAT, T0, T0 + 1800, 600)
    np.testing.assert_array_equal(got.arrivals, [1.0, np.nan, 3.0])
    assert np.isnan(nothing.arrivals).all()


async def test_a_long_time_is_asked_for_in_chunks_that_join_without_a_seam() -> None:
    server = Server()
    async with serving(server) as history:
        got = await history.read(CHAT, T0, T0 + 2500 * 600, 600)
    np.testing.assert_array_equal(got.arrivals, np.arange(1.0, 2501.0))
    assert len(server.queries) == 4 * 3
    assert list(chunks(CHUNK_STEPS + 1)) == [(0, CHUNK_STEPS), (CHUNK_STEPS, CHUNK_STEPS + 1)]


async def test_a_server_that_refuses_or_is_away_is_named_and_comes_back() -> None:
    server = Server()
    async with serving(server) as history:
        server.status = 422
        with pytest.raises(HistoryUnavailable, match="does not answer the query"):
            await history.read(CHAT, T0, T0 + 600, 600)
        server.status = 200
        assert (await history.read(CHAT, T0, T0 + 600, 600)).arrivals.tolist() == [1.0]
    away = PrometheusHistory("http://127.0.0.1:9")
    with pytest.raises(HistoryUnavailable, match=r"cannot be reached .* Check history\.prometheusUrl"):
        await away.read(CHAT, T0, T0 + 600, 600)
    away.close()


async def test_a_server_that_names_hours_until_it_may_be_asked_again_is_not_waited_for() -> None:
    server = Server()
    server.status, server.headers = 503, {"Retry-After": "3600"}
    async with asyncio.timeout(10), serving(server) as history:
        with pytest.raises(HistoryUnavailable, match="does not answer the query"):
            await history.read(CHAT, T0, T0 + 600, 600)


async def test_an_answer_that_does_not_end_is_given_up_and_its_thread_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prometheus, "WAITED_S", 0.2)
    ends = threading.Event()

    class Endless:
        def custom_query_range(self, *_: Any, **__: Any) -> Any:
            ends.wait(10)
            return [{"values": [[T0 + 600, "5"]]}]

    history = PrometheusHistory("http://prometheus", Endless())
    for _ in range(AT_ONCE + 2):
        with pytest.raises(HistoryUnavailable, match=r"does not answer within 0\.2 s"):
            await history.read(CHAT, T0, T0 + 600, 600)
    ends.set()
    assert (await history.read(CHAT, T0, T0 + 600, 600)).arrivals.tolist() == [5.0]
    history.close()


async def test_the_loop_turns_while_the_server_thinks() -> None:
    turned = asyncio.Event()

    class Slow:
        def custom_query_range(self, *_: Any, **__: Any) -> Any:
            asyncio.run_coroutine_threadsafe(_set(turned), loop).result(10)
            return []

    loop = asyncio.get_running_loop()
    history = PrometheusHistory("http://prometheus", Slow())
    assert np.isnan((await history.read(CHAT, T0, T0 + 600, 600)).arrivals).all()
    assert turned.is_set()
    history.close()


async def _set(event: asyncio.Event) -> None:
    event.set()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "text",
        [{}],
        [{"values": [["a", "b"], [1], None]}],
        [1_700_000_000, "1"],
        [{"values": 5}],
        [{"values": {"0": "1"}}],
        [{"values": [{"0": "1"}, 5, [10**400, "1"]]}],
        [{"values": [["NaN", "1"], [float("inf"), "1"], ["-Inf", "1"]]}],
    ],
)
def test_an_answer_that_is_no_matrix_is_no_sample(answer: Any) -> None:
    assert list(samples_in(answer)) == []


async def test_values_that_no_counter_can_have_are_gaps() -> None:
    class Odd:
        def custom_query_range(self, *_: Any, **__: Any) -> Any:
            return [{"values": [[T0 + 600, "NaN"], [T0 + 1200, "-4"], [T0 + 1800, "+Inf"], [T0 + 2400, "5"]]}]

    history = PrometheusHistory("http://prometheus", Odd())
    got = await history.read(CHAT, T0, T0 + 2400, 600)
    np.testing.assert_array_equal(got.arrivals, [np.nan, np.nan, np.nan, 5.0])
    history.close()
