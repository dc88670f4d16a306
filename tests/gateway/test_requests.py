"""What a client sees when everything works, and what it is told when it asks for the wrong thing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import openai
import pytest

from gateway.catalog import ServiceKey
from tests.gateway.harness import (
    KEY,
    OTHER_KEY,
    Exchange,
    FakeWorker,
    answers,
    catalog,
    completion,
    keyring,
    running,
    service,
    serving,
    workers,
)
from tests.waiting import eventually

ASK = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


def client(url: str, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=10)


async def test_the_openai_client_gets_an_answer_and_the_revision_that_made_it() -> None:
    async with serving(FakeWorker(answers)) as gateway, client(gateway.url) as ai:
        raw = await ai.chat.completions.with_raw_response.create(**ASK)
        assert raw.parse().choices[0].message.content == "chat-abc12-7f-x1"
        assert raw.headers["x-foretide-revision"] == "abc12"


async def test_the_openai_client_streams_every_event_in_order() -> None:
    async with serving(FakeWorker(answers)) as gateway, client(gateway.url) as ai:
        stream = await ai.chat.completions.create(**ASK, stream=True)
        assert [chunk.choices[0].delta.content async for chunk in stream] == ["t0 ", "t1 ", "t2 "]


async def test_completions_and_the_name_with_its_namespace_reach_the_same_workers() -> None:
    worker = FakeWorker(answers)
    async with serving(worker) as gateway:
        for path in ("/v1/chat/completions", "/v1/completions"):
            assert (await gateway.post({"model": "demo/chat"}, path=path)).status == 200
        assert [one.line for one in worker.asked] == [
            "POST /v1/chat/completions HTTP/1.1",
            "POST /v1/completions HTTP/1.1",
        ]


async def test_the_body_passes_unchanged_and_identity_does_not_pass_at_all() -> None:
    worker = FakeWorker(answers)
    body = b'{ "model":"chat",  "unknown": [1.0, "\\u00e9"], "stream":false }'
    headers = {
        "X-Request-Id": "client-id-0001",
        "X-Forwarded-For": "1.2.3.4",
        "X-Foretide-Revision": "evil",
        "X-Foretide-Stream": "1 00 1",
        "X-Foretide-Continue": "00 5",
        "Cookie": "a=b",
        "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    async with serving(worker) as gateway:
        got = await gateway.post(body, headers=headers)
    asked = worker.asked[0]
    assert asked.body == body
    assert got.headers["x-request-id"] == asked.headers["x-request-id"] == "client-id-0001"
    assert asked.headers["traceparent"].startswith("00-0af7")
    assert not {"authorization", "cookie", "x-forwarded-for", "x-foretide-revision"} & asked.headers.keys()
    assert not {"x-foretide-stream", "x-foretide-continue"} & asked.headers.keys()


@pytest.mark.parametrize("given", ["short", "has space in it", "x" * 129, "evil\tid-12345"])
async def test_a_request_id_that_is_not_well_formed_is_replaced(given: str) -> None:
    worker = FakeWorker(answers)
    async with serving(worker) as gateway:
        got = await gateway.post(ASK, headers={"X-Request-Id": given})
    assert got.headers["x-request-id"].startswith("req-")
    assert worker.asked[0].headers["x-request-id"] == got.headers["x-request-id"]


async def test_upstream_connections_are_kept_and_used_again() -> None:
    worker = FakeWorker(answers)
    async with serving(worker) as gateway:
        for _ in range(20):
            assert (await gateway.post(ASK)).status == 200
    assert worker.connections == 1


async def test_a_worker_s_own_error_reaches_the_client_as_it_is() -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.json(400, {"error": {"message": "max_tokens is too large"}})

    worker = FakeWorker(refuses)
    async with serving(worker) as gateway:
        for body in (ASK, {**ASK, "stream": True}):
            got = await gateway.post(body)
            assert (got.status, got.error["message"]) == (400, "max_tokens is too large")
            assert got.headers["x-foretide-revision"] == "abc12"
    assert len(worker.asked) == 2


# --- identity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Basic sk-acme-1", "Bearer sk-acme-2", "sk-acme-1"]
)
async def test_a_missing_or_wrong_key_is_401_and_nothing_reaches_a_worker(authorization: str | None) -> None:
    worker = FakeWorker(answers)
    headers = {} if authorization is None else {"Authorization": authorization}
    async with serving(worker) as gateway:
        got = await gateway.post(ASK, key=None, headers=headers)
    assert (got.status, got.error["code"], worker.asked) == (401, "invalid_api_key", [])


async def test_the_openai_client_raises_its_own_errors() -> None:
    async with serving(FakeWorker(answers)) as gateway:
        async with client(gateway.url, "sk-wrong") as ai:
            with pytest.raises(openai.AuthenticationError):
                await ai.chat.completions.create(**ASK)
        async with client(gateway.url) as ai:
            with pytest.raises(openai.NotFoundError, match="'gpt-9' does not exist"):
                await ai.chat.completions.create(model="gpt-9", messages=[])


async def test_keys_rotate_without_a_gap_and_a_removed_key_is_refused_at_once() -> None:
    async with serving(FakeWorker(answers)) as gateway:

        async def status(key: str) -> int:
            return (await gateway.post(ASK, key=key)).status

        assert [await status("sk-old"), await status("sk-new")] == [401, 401]
        base = gateway.source.catalog
        gateway.source.publish(replace(base, keyring=keyring(acme=["sk-old", "sk-new"])))
        assert [await status("sk-old"), await status("sk-new")] == [200, 200]
        gateway.source.publish(replace(base, keyring=keyring(acme=["sk-new"])))
        assert [await status("sk-old"), await status("sk-new")] == [401, 200]


async def test_the_key_of_a_deleted_tenant_is_refused() -> None:
    async with serving(FakeWorker(answers)) as gateway:
        gateway.source.publish(replace(gateway.source.catalog, tenants={}))
        assert (await gateway.post(ASK)).status == 401


async def test_two_tenants_do_not_see_each_other_s_models() -> None:
    mine, theirs = FakeWorker(answers), FakeWorker(answers, name="secret-zz9-1-2")
    async with workers(mine, theirs):
        view = catalog(service(mine), service(theirs, key=ServiceKey("prod", "secret")))
        async with running(view) as gateway:
            for model in ("secret", "prod/secret"):
                got = await gateway.post({"model": model})
                assert (got.status, got.error["code"], got.error["param"]) == (404, "model_not_found", "model")
                assert f"'{model}'" in got.error["message"]
                assert "GET /v1/models" in got.error["message"]
            assert (await gateway.post({"model": "secret"}, key=OTHER_KEY)).status == 200
            assert (await gateway.get("/v1/models/prod%2Fsecret")).status == 404
            ids = [one["id"] for one in (await gateway.get("/v1/models", key=OTHER_KEY)).json["data"]]
            assert ids == ["secret"]
    assert mine.asked == []


async def test_a_name_in_two_namespaces_of_a_tenant_must_be_said_in_full() -> None:
    worker, other = FakeWorker(answers), FakeWorker(answers, name="chat-qqq-1-2")
    async with workers(worker, other):
        view = catalog(service(worker), service(other, key=ServiceKey("lab", "chat")))
        async with running(view) as gateway:
            got = await gateway.post(ASK)
            assert (got.status, got.error["code"]) == (400, "model_ambiguous")
            assert "'demo/chat' or 'lab/chat'" in got.error["message"]
            assert (await gateway.post({"model": "lab/chat"})).headers["x-foretide-revision"] == "qqq"
            ids = [one["id"] for one in (await gateway.get("/v1/models")).json["data"]]
            assert ids == ["demo/chat", "lab/chat"]


async def test_a_model_can_be_asked_for_by_itself() -> None:
    async with serving(FakeWorker(answers)) as gateway, client(gateway.url) as ai:
        assert [model.id async for model in ai.models.list()] == ["chat"]
        assert (await ai.models.retrieve("chat")).owned_by == "demo"
        for path in ("/v1/models/demo/chat", "/v1/models/demo%2Fchat"):
            assert (await gateway.get(path)).json["id"] == "demo/chat"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b"{}", "provide a model"),
        (b'{"model": 7}', "provide a model"),
        (b'{"model": "chat", "stream": "yes"}', "must be true or false"),
        (b"[" * 5000, "not valid JSON"),
        (b'{"model": "\xff"}', "not valid JSON"),
    ],
)
async def test_a_body_that_asks_for_nothing_is_refused_with_a_sentence(body: bytes, said: str) -> None:
    async with serving(FakeWorker(answers)) as gateway:
        got = await gateway.post(body)
    assert got.status == 400
    assert said in got.error["message"]
    assert got.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/health/live", "/v1", "/v1/embeddings", "/v1/chat/completions/", "/drain"]
)
async def test_every_other_route_is_denied(path: str) -> None:
    worker = FakeWorker(answers)
    async with serving(worker) as gateway:
        for got in (await gateway.get(path), await gateway.post(ASK, path=path)):
            assert (got.status, got.error["code"]) == (404, "unknown_url")
    assert worker.asked == []


async def test_a_wrong_method_and_a_compressed_body_are_refused() -> None:
    async with serving(FakeWorker(answers)) as gateway:
        assert (await gateway.get("/v1/chat/completions")).status == 405
        assert (await gateway.post(ASK, headers={"Content-Encoding": "gzip"})).status == 415


# --- what is measured -------------------------------------------------------------------------------------------------


async def test_requests_tokens_and_the_sla_are_counted() -> None:
    async with serving(FakeWorker(answers), ttft_target_s=5.0) as gateway:
        await gateway.post(ASK)
        await gateway.post({**ASK, "stream": True})
        await gateway.post(ASK, key="wrong")
        where = {"namespace": "demo", "service": "chat"}
        assert await gateway.metric("requests_total", tenant="acme", code="200", **where) == 2
        assert await gateway.metric("requests_total", tenant="", code="401") == 1
        assert await gateway.metric("sla_requests_total", target="ttft", met="true", **where) == 1
        assert await gateway.metric("good_requests_total", **where) == 2
        assert await gateway.metric("good_output_tokens_total", **where) == await gateway.metric("output_tokens_total")
        assert await gateway.metric("ttft_seconds_count", **where) == 1
        assert await gateway.metric("endpoints", state="ready", **where) == 1
        assert await gateway.metric("in_flight", **where) == 0
        assert await gateway.metric("open_streams", **where) == 0


async def test_a_first_token_after_the_target_counts_as_missed() -> None:
    async with serving(FakeWorker(answers), ttft_target_s=1e-9) as gateway:
        await gateway.post({**ASK, "stream": True})
        assert await gateway.metric("sla_requests_total", met="false") == 1
        assert await gateway.metric("completed_total") == 1
        assert await gateway.metric("good_requests_total") == 0


async def test_the_metrics_of_a_deleted_service_go_with_it() -> None:
    async with serving(FakeWorker(answers)) as gateway:
        await gateway.post(ASK)
        assert await gateway.metric("requests_total", service="chat") == 1
        gateway.source.publish_services()
        assert await gateway.metric("requests_total", service="chat") == 0
        assert (await gateway.post(ASK)).status == 404


async def test_the_metrics_of_a_deleted_tenant_go_with_it_and_begin_anew_with_another_of_its_name() -> None:
    async with serving(FakeWorker(answers)) as gateway:
        before = gateway.source.catalog
        for key in (KEY, OTHER_KEY, "wrong"):
            await gateway.post(ASK, key=key)
        await gateway.get("/v1/models")
        assert await gateway.metric("requests_total", tenant="acme") == 2
        gateway.source.publish(replace(before, tenants={"globex": before.tenants["globex"]}))
        assert await gateway.metric("requests_total", tenant="acme") == 0
        assert await gateway.metric("requests_total") == 2, "what others asked is counted on"
        gateway.source.publish(before)
        await gateway.post(ASK)
        assert await gateway.metric("requests_total", tenant="acme") == 1


async def test_a_request_that_outlives_its_tenant_does_not_bring_back_its_metrics() -> None:
    goes_on = asyncio.Event()

    async def answers_later(exchange: Exchange) -> None:
        await goes_on.wait()
        await answers(exchange)

    worker = FakeWorker(answers_later)
    async with serving(worker) as gateway:
        before = gateway.source.catalog
        asking = asyncio.create_task(gateway.post(ASK))
        await eventually(lambda: bool(worker.asked), "a worker has it")
        gateway.source.publish(replace(before, tenants={"globex": before.tenants["globex"]}))
        goes_on.set()
        assert (await asking).status == 200
        assert await gateway.metric("requests_total") == 0


async def test_the_probe_goes_the_way_of_a_client_and_says_what_answered() -> None:
    worker = FakeWorker(answers)
    async with serving(worker) as gateway:
        url = f"http://127.0.0.1:{gateway.admin_port}/probe/demo"
        async with gateway.session.post(f"{url}/chat") as response:
            said = await response.json()
            assert (response.status, said["revision"]) == (200, "abc12")
            assert said["endpoint"] == f"127.0.0.1:{worker.port}"
        assert b'"model":"demo/chat"' in worker.asked[0].body
        async with gateway.session.post(f"{url}/none") as response:
            assert (response.status, (await response.json())["reason"]) == (503, "UnknownService")
        gateway.source.publish_services(service())
        async with gateway.session.post(f"{url}/chat") as response:
            assert (response.status, (await response.json())["reason"]) == (503, "NoEndpoint")


async def test_the_probe_of_a_worker_that_answers_wrongly_fails() -> None:
    async def broken(exchange: Exchange) -> None:
        await exchange.json(500, completion("no"))

    async with serving(FakeWorker(broken)) as gateway:
        url = f"http://127.0.0.1:{gateway.admin_port}/probe/demo/chat"
        response = await gateway.session.post(url)
        assert (response.status, (await response.json())["reason"]) == (503, "BadAnswer")
