"""Where the catalog comes from: the API server's watches, and a file; and the flags that choose."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.admission.terms import Limits
from gateway.catalog import Catalog, Fallback, ServiceKey
from gateway.errors import SettingsError
from gateway.identity import Keyring
from gateway.routing.terms import Policy, RoutingTerms, TrafficShare
from gateway.settings import parse
from gateway.static import load
from gateway.watch import WatchSource
from gateway.zone import zone_of
from kube.errors import Unreachable
from kube.resources import ENDPOINT_SLICES, INFERENCE_SERVICES, NODES, SECRETS, SLAS, TENANTS
from tests.fakes import FakeClient
from tests.waiting import eventually

CHAT = ServiceKey("demo", "chat")
PEPPER = b"q" * 32


def meta(name: str, namespace: str | None = "demo", **labels: str) -> dict[str, Any]:
    placed = {"namespace": namespace} if namespace else {}
    return {**placed, "name": name, "creationTimestamp": "2026-01-02T03:04:05Z", "labels": labels}


def service(name: str = "chat", sla: str | None = None) -> dict[str, Any]:
    return {"metadata": meta(name), "spec": {"model": "m", **({"sla": sla} if sla else {})}}


def sla(ttft: str | None) -> dict[str, Any]:
    return {"metadata": meta("fast"), "spec": {"priority": "P1", **({"targets": {"ttft": ttft}} if ttft else {})}}


def tenant(*namespaces: str) -> dict[str, Any]:
    return {"metadata": meta("acme", None), "spec": {"namespaces": list(namespaces)}}


def slice_(*pods: str, name: str = "chat-worker-1", ready: bool = True) -> dict[str, Any]:
    endpoints = [
        {"addresses": [f"10.0.0.{number}"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": pod}}
        for number, pod in enumerate(pods)
    ]
    labels = {"foretide.dev/inference-service": "chat"}
    return {"metadata": {**meta(name), "labels": labels}, "ports": [{"port": 8000}], "endpoints": endpoints}


def keyring(*keys: str, name: str = "foretide-keyring") -> dict[str, Any]:
    ring = Keyring(PEPPER)
    hashes = json.dumps({"acme": [ring.digest(key.encode()).hex() for key in keys]}).encode()
    data = {"pepper": base64.b64encode(PEPPER).decode(), "keyring.json": base64.b64encode(hashes).decode()}
    return {"metadata": meta(name, "foretide-system"), "data": data}


def cluster() -> FakeClient:
    return FakeClient(
        (INFERENCE_SERVICES, service(sla="fast")),
        (SLAS, sla("250ms")),
        (TENANTS, tenant("demo")),
        (ENDPOINT_SLICES, slice_("chat-aa1-5-x")),
        (SECRETS, keyring("sk-1")),
    )


@contextlib.asynccontextmanager
async def following(client: FakeClient) -> AsyncIterator[list[Catalog]]:
    views: list[Catalog] = []
    running = asyncio.create_task(WatchSource(client, "foretide-system").run(views.append))
    try:
        await eventually(lambda: views, "the first view was published")
        yield views
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_first_view_is_complete() -> None:
    async with following(cluster()) as views:
        view = views[0]
        chat = view.services[CHAT]
        assert (chat.ttft_target_s, chat.created_s) == (0.25, 1767323045)
        assert [(one.where, one.revision, one.ready) for one in chat.endpoints] == [("10.0.0.0:8000", "aa1", True)]
        assert view.tenants["acme"].namespaces == {"demo"}
        assert view.keyring.tenants == {Keyring(PEPPER).digest(b"sk-1"): "acme"}


async def test_every_kind_of_change_makes_a_new_view() -> None:
    client = cluster()
    async with following(client) as views:

        def endpoints() -> list[str]:
            return [one.pod for one in views[-1].services[CHAT].endpoints]

        client.put(ENDPOINT_SLICES, slice_("chat-bb2-5-x", "chat-bb2-5-y"))
        await eventually(lambda: endpoints() == ["chat-bb2-5-x", "chat-bb2-5-y"], "the endpoints changed")
        client.put(SLAS, sla("2s"))
        await eventually(lambda: views[-1].services[CHAT].ttft_target_s == 2.0, "the target changed")
        client.put(SLAS, sla(None))
        await eventually(lambda: views[-1].services[CHAT].ttft_target_s is None, "the target went")
        client.put(TENANTS, tenant("demo", "lab"))
        await eventually(lambda: "lab" in views[-1].tenants["acme"].namespaces, "the tenant grew")
        client.put(SECRETS, keyring("sk-2"))
        await eventually(lambda: Keyring(PEPPER).digest(b"sk-2") in views[-1].keyring.tenants, "the key rotated")
        assert Keyring(PEPPER).digest(b"sk-1") not in views[-1].keyring.tenants
        client.put(INFERENCE_SERVICES, service("other"))
        await eventually(lambda: len(views[-1].services) == 2, "a service came")
        client.remove(INFERENCE_SERVICES, "demo", "chat")
        await eventually(lambda: CHAT not in views[-1].services, "a service went")


async def test_a_service_that_did_not_change_is_the_same_object_in_the_next_view() -> None:
    client = cluster()
    client.put(INFERENCE_SERVICES, service("other"))
    async with following(client) as views:
        other = ServiceKey("demo", "other")
        client.put(ENDPOINT_SLICES, slice_("chat-cc3-5-x"))
        await eventually(lambda: views[-1].services[CHAT].endpoints[0].revision == "cc3", "chat changed")
        assert views[-1].services[other] is views[0].services[other]


async def test_what_a_service_says_of_its_routing_and_the_operator_of_its_traffic_is_in_the_view() -> None:
    client = cluster()
    told = service()
    told["spec"]["routing"] = {"policy": "prefix", "preferZone": True, "loadBound": 200, "otherRevision": False}
    told["spec"]["fallbacks"] = [{"service": "small", "maxTokens": 64}, {"maxTokens": 8}]
    told["status"] = {"traffic": [{"revision": "aa1", "weight": 100}, {"revision": "bb2", "weight": 0, "mirror": 10}]}
    client.put(INFERENCE_SERVICES, told)
    placed = slice_("chat-aa1-5-x")
    placed["endpoints"][0]["zone"] = "z1"
    client.put(ENDPOINT_SLICES, placed)
    async with following(client) as views:
        seen = views[-1].services[CHAT]
        assert seen.routing == RoutingTerms(Policy.PREFIX, True, 2.0, False)
        assert seen.fallbacks == (Fallback(ServiceKey("demo", "small"), 64), Fallback(CHAT, 8))
        assert seen.traffic == (TrafficShare("aa1", 100), TrafficShare("bb2", 0, 10))
        assert seen.endpoints[0].zone == "z1"


async def test_the_zone_is_the_label_of_the_gateway_s_own_node_and_none_without_one() -> None:
    node = {"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}}}
    client = FakeClient((NODES, node))
    assert await zone_of(client, "n1") == "z1"
    assert await zone_of(client, "gone") is None
    assert await zone_of(client, None) is None


async def test_what_another_release_stored_is_read_in_part_and_keeps_no_gateway_from_the_rest() -> None:
    client = cluster()
    client.put(INFERENCE_SERVICES, {"metadata": meta("odd"), "spec": {"model": "m", "scaling": {"min": -1, "max": 3}}})
    client.put(INFERENCE_SERVICES, {"metadata": meta("none"), "spec": "what?"})
    client.put(
        SLAS, {"metadata": meta("fast"), "spec": {"priority": "P9", "targets": {"ttft": "0.5s", "tpot": "50ms"}}}
    )
    limits = {"concurrency": 0, "requestsPerMinute": 60, "burst": "soon"}
    client.put(TENANTS, {"metadata": meta("acme", None), "spec": {"namespaces": ["demo", 7], "limits": limits}})
    client.put(TENANTS, {"metadata": meta("mute", None), "spec": {"namespaces": "demo", "maxPriority": "P9"}})
    async with following(client) as views:
        view = views[-1]
        assert {str(one) for one in view.services} == {"demo/chat", "demo/odd", "demo/none"}
        chat, acme = view.services[CHAT], view.tenants["acme"]
        assert (chat.ttft_target_s, chat.tpot_target_s) == (None, 0.05)
        assert acme.namespaces == {"demo"}
        assert acme.terms.limits == Limits(requests_per_minute=60, concurrency=1)
        assert view.tenants["mute"].namespaces == frozenset()
        client.put(TENANTS, {"metadata": meta("acme", None), "spec": {"namespaces": ["demo", "lab"]}})
        await eventually(lambda: "lab" in views[-1].tenants["acme"].namespaces, "and later changes are seen")


async def test_slices_that_come_before_their_service_wait_for_it() -> None:
    client = cluster()
    client.remove(INFERENCE_SERVICES, "demo", "chat")
    async with following(client) as views:
        assert views[-1].services == {}
        client.put(INFERENCE_SERVICES, service())
        await eventually(lambda: CHAT in views[-1].services, "the service came")
        assert len(views[-1].services[CHAT].endpoints) == 1


async def test_another_secret_is_not_a_keyring_and_no_keyring_lets_nobody_in() -> None:
    client = cluster()
    client.remove(SECRETS, "foretide-system", "foretide-keyring")
    client.put(SECRETS, keyring("sk-1", name="something-else"))
    async with following(client) as views:
        assert views[-1].keyring.tenants == {}


async def test_the_view_stands_while_the_api_server_is_away() -> None:
    client = cluster()
    async with following(client) as views:
        for resource in (INFERENCE_SERVICES, SLAS, TENANTS, ENDPOINT_SLICES, SECRETS):
            client.fail_next("watch", resource, *[Unreachable("away")] * 3)
        client.break_streams()
        client.put(ENDPOINT_SLICES, slice_("chat-dd4-5-x"))
        assert views[-1].services[CHAT].endpoints[0].revision == "aa1"
        await eventually(lambda: views[-1].services[CHAT].endpoints[0].revision == "dd4", "it caught up")
        assert all(view.services for view in views), "no view in between was empty"


# --- the file and the flags -------------------------------------------------------------------------------------------


GOOD = """
tenants: [{name: acme, namespaces: [demo], keys: [sk-a, sk-b]}]
services: [{namespace: demo, name: chat, ttft: 500ms, revision: r1, endpoints: ["127.0.0.1:1", "[::1]:2"]}]
"""


def test_a_static_file_is_a_catalog(tmp_path: Path) -> None:
    file = tmp_path / "static.yaml"
    file.write_text(GOOD)
    catalog = load(file)
    assert [one.where for one in catalog.services[CHAT].endpoints] == ["127.0.0.1:1", "[::1]:2"]
    assert catalog.services[CHAT].ttft_target_s == 0.5
    assert catalog.keyring.tenants[catalog.keyring.digest(b"sk-b")] == "acme"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("tenants: []", "services"),
        (GOOD.replace("127.0.0.1:1", "nowhere"), "'nowhere' is not host:port"),
        (GOOD.replace("127.0.0.1:1", "127.0.0.1:²"), "'127.0.0.1:²' is not host:port"),
        (GOOD.replace("127.0.0.1:1", "127.0.0.1:65536"), "'127.0.0.1:65536' is not host:port"),
        (GOOD.replace("revision", "revisions"), "Extra inputs"),
        (GOOD.replace("500ms", "soon"), "ttft"),
        ("{", "static.yaml"),
    ],
)
def test_a_bad_static_file_is_refused_at_the_start_with_its_name(tmp_path: Path, bad: str, said: str) -> None:
    file = tmp_path / "static.yaml"
    file.write_text(bad)
    with pytest.raises(SettingsError, match=r"static\.yaml") as refused:
        load(file)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--deadline", "0"], "--deadline is 0.0; it must be greater than 0"),
        (["--endpoint-wait", "-1"], "--endpoint-wait is -1.0; it must be 0 or more"),
        (["--port", "70000"], "--port is 70000"),
        (["--port", "8081"], "--port and --admin-port are both 8081"),
        (["--access-log", "2"], "--access-log is 2.0"),
        (["--static", "/nonexistent"], "there is no such file"),
    ],
)
def test_bad_flags_are_refused_with_a_sentence(flags: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match="--") as refused:
        parse(flags)
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["nan", "inf", "soon"])
def test_a_flag_that_is_no_finite_number_is_refused_by_its_name(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["--header-timeout", text])
    assert f"--header-timeout: '{text}' is no finite number" in capsys.readouterr().err


def test_the_defaults_are_valid() -> None:
    settings = parse([])
    assert (settings.port, settings.admin_port, settings.system_namespace) == (8080, 8081, "foretide-system")
    assert settings.limits.body_bytes == 8 * 1024 * 1024
