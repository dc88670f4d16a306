"""Questions to one revision: only its workers answer, and silence is told in words."""

from __future__ import annotations

import asyncio

import orjson

from tests.gateway.harness import CHAT, Exchange, FakeWorker, catalog, running, service, workers


async def _says(exchange: Exchange) -> None:
    await exchange.json(200, {"id": exchange.worker.name})


def _of(revision: str) -> FakeWorker:
    return FakeWorker(_says, name=f"chat-{revision}-7f-x1")


async def test_only_workers_of_the_named_revision_are_asked() -> None:
    old, new = _of("aaaaa"), _of("bbbbb")
    async with workers(old, new), running(catalog(service(old, new))) as gateway:
        for revision, worker in (("aaaaa", old), ("bbbbb", new)):
            url = f"http://127.0.0.1:{gateway.admin_port}/ask/{CHAT}/{revision}"
            async with gateway.session.post(url, data=orjson.dumps({"prompt": "x"})) as response:
                assert (response.status, await response.json()) == (200, {"id": worker.name})


async def test_a_revision_without_a_ready_worker_and_an_unknown_service_are_told_apart() -> None:
    async with running(catalog(service())) as gateway:
        for where, reason in ((f"{CHAT}/ccccc", "NotAnswered"), ("demo/nobody/ccccc", "UnknownService")):
            async with gateway.session.post(
                f"http://127.0.0.1:{gateway.admin_port}/ask/{where}", data=b"{}"
            ) as response:
                assert (response.status, (await response.json())["reason"]) == (503, reason)


async def test_a_question_beyond_the_limit_is_refused() -> None:
    async with running(catalog(service())) as gateway:
        url = f"http://127.0.0.1:{gateway.admin_port}/ask/{CHAT}/ccccc"
        async with gateway.session.post(url, data=b"x" * 20_000) as response:
            assert response.status == 413


async def test_an_answer_that_comes_in_pieces_is_handed_on_whole() -> None:
    text = "x" * 1000

    async def in_pieces(exchange: Exchange) -> None:
        body = orjson.dumps({"id": text})
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 100):
            await exchange.send(body[at : at + 100])
            for _ in range(10):  # turns of the loop, in which the gateway may read
                await asyncio.sleep(0)

    worker = FakeWorker(in_pieces, name="chat-aaaaa-7f-x1")
    async with workers(worker), running(catalog(service(worker))) as gateway:
        url = f"http://127.0.0.1:{gateway.admin_port}/ask/{CHAT}/aaaaa"
        async with gateway.session.post(url, data=b"{}") as response:
            assert (response.status, await response.json()) == (200, {"id": text})
