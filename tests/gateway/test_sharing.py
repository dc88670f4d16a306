"""With whom a tenant shares cached prefixes: the salt that its requests carry to workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import Catalog, Tenant
from gateway.kept import keep_tenant
from gateway.sharing import Salter, salt_of
from gateway.static import load
from tests.gateway.harness import (
    EMPTY,
    KEY,
    OTHER_KEY,
    FakeWorker,
    answers,
    catalog,
    keyring,
    running,
    service,
    workers,
)

PEPPER = b"p" * 32
NAMES = st.text("ab-", min_size=1, max_size=4)
TENANTS = st.builds(
    lambda name, domain: Tenant(name, frozenset(), cache_domain=domain), NAMES, st.one_of(st.none(), NAMES)
)
ASK = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}


def shared(*workers: FakeWorker, domain: str | None = None) -> Catalog:
    """Two tenants who use one service."""
    both = [Tenant(name, frozenset({"demo"}), cache_domain=domain) for name in ("acme", "globex")]
    ring = keyring(acme=[KEY], globex=[OTHER_KEY])
    return replace(catalog(service(*workers)), tenants=Salter().salted(both, EMPTY.pepper), keyring=ring)


@given(TENANTS, TENANTS)
def test_two_tenants_have_the_same_salt_exactly_where_they_name_the_same_domain(one: Tenant, other: Tenant) -> None:
    agree = one.cache_domain is not None and one.cache_domain == other.cache_domain
    is_one = one.name == other.name and one.cache_domain is None and other.cache_domain is None
    assert (salt_of(one, PEPPER) == salt_of(other, PEPPER)) == (agree or is_one)


def test_who_does_not_know_the_secret_of_the_keyring_does_not_know_the_salt() -> None:
    tenant = Tenant("acme", frozenset())
    assert salt_of(tenant, PEPPER) != salt_of(tenant, b"q" * 32)
    assert len(salt_of(tenant, PEPPER)) == 32
    assert b"acme" not in salt_of(tenant, PEPPER)


def test_an_unchanged_tenant_stays_the_same_object_until_it_or_the_secret_changes() -> None:
    salter, acme, globex = Salter(), Tenant("acme", frozenset()), Tenant("globex", frozenset())
    first = salter.salted([acme, globex], PEPPER)
    again = salter.salted([acme, replace(globex, cache_domain="lab")], PEPPER)
    assert again["acme"] is first["acme"]
    assert again["globex"].cache_salt != first["globex"].cache_salt
    assert salter.salted([acme], b"q" * 32)["acme"].cache_salt != first["acme"].cache_salt


def test_the_domain_is_read_from_the_object() -> None:
    spec = {"namespaces": ["demo"], "cacheDomain": "lab"}
    assert keep_tenant({"metadata": {"name": "acme"}, "spec": spec}).cache_domain == "lab"


def test_every_process_that_reads_the_same_file_makes_the_same_salts(tmp_path: Path) -> None:
    file = tmp_path / "static.yaml"
    file.write_text(
        "tenants: [{name: acme, namespaces: [demo], keys: [sk-1]}, {name: globex, namespaces: [demo], keys: [sk-2]}]\n"
        "services: []\n"
    )
    one, other = load(file).tenants, load(file).tenants
    assert one["acme"].cache_salt == other["acme"].cache_salt
    assert one["acme"].cache_salt not in (b"", one["globex"].cache_salt)


async def test_a_worker_is_told_a_salt_for_each_tenant_and_no_client_can_say_another() -> None:
    worker = FakeWorker(answers)
    async with workers(worker), running(shared(worker)) as gateway:
        await gateway.post(ASK)
        await gateway.post(ASK, key=OTHER_KEY)
        own = [one.headers["x-foretide-cache-salt"] for one in worker.asked]
        await gateway.post(ASK, key=OTHER_KEY, headers={"x-foretide-cache-salt": own[0]})
    assert own[0] != own[1]
    assert worker.asked[2].headers["x-foretide-cache-salt"] == own[1]


async def test_tenants_of_one_cache_domain_are_told_under_one_salt() -> None:
    worker = FakeWorker(answers)
    async with workers(worker), running(shared(worker, domain="lab")) as gateway:
        await gateway.post(ASK)
        await gateway.post(ASK, key=OTHER_KEY)
    assert len({one.headers["x-foretide-cache-salt"] for one in worker.asked}) == 1
