"""Which addresses a source may lead to."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from typing import Any

import pytest
import requests

from controllers.guard import AddressGuard, AddressRefused, GuardedAdapter, GuardedResolver
from tests.controllers.model_cache.files import WebServer, serving

INSIDE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "fd00:ec2::254",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match=r"'evil\.example' leads to .*modelCache\.allowPrivateNetworks"):
        AddressGuard().check("evil.example", address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111"])
def test_public_addresses_are_allowed(address: str) -> None:
    AddressGuard().check("models.example", address)


def test_an_allowed_network_opens_itself_and_nothing_else() -> None:
    guard = AddressGuard([ipaddress.ip_network("10.0.0.0/8")])
    guard.check("store", "10.1.2.3")
    with pytest.raises(AddressRefused):
        guard.check("store", "192.168.1.1")


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001"])
async def test_names_and_odd_spellings_of_loopback_are_refused_when_resolved(host: str) -> None:
    with pytest.raises(AddressRefused):
        await GuardedResolver(AddressGuard()).resolve(host, 80)


async def test_a_name_that_changes_its_address_is_refused_at_the_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[list[Any]] = [[(2, 1, 6, "", ("1.1.1.1", 80))], [(2, 1, 6, "", ("169.254.169.254", 80))]]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answers.pop(0))
    resolver = GuardedResolver(AddressGuard())
    assert (await resolver.resolve("rebind.example", 80))[0]["host"] == "1.1.1.1"
    with pytest.raises(AddressRefused):
        await resolver.resolve("rebind.example", 80)


async def test_a_name_server_that_does_not_answer_holds_none_of_the_loops_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answered.wait() and [])
    resolver = GuardedResolver(AddressGuard())
    waiting = [asyncio.ensure_future(resolver.resolve(f"silent-{number}.example", 80)) for number in range(100)]
    try:
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 10) == "free"
    finally:
        answered.set()
        await asyncio.gather(*waiting)
        await resolver.close()


async def test_libraries_on_requests_are_held_to_the_same_rule_on_redirects() -> None:
    async with serving(WebServer(redirect_to="http://127.0.0.2:9/x")) as server:
        with requests.Session() as session:
            session.mount("http://", GuardedAdapter(AddressGuard([ipaddress.ip_network("127.0.0.1/32")])))
            found = await asyncio.to_thread(session.get, server.url, allow_redirects=False)
            assert found.status_code == 302
            with pytest.raises(requests.ConnectionError, match=r"'127\.0\.0\.2' leads to 127\.0\.0\.2, which is not a"):
                await asyncio.to_thread(session.get, server.url)
