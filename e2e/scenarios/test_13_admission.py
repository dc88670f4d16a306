"""Limits hold over both gateways, a flood is its sender's own trouble, and a gateway that dies takes no quota along."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import openai
import pytest

from e2e.install import SYSTEM, resource
from e2e.load import Account, Load
from e2e.scenarios.world import World, until

Measured = Callable[[str, str], None]
GATEWAYS = "app.kubernetes.io/name=foretide-gateway"
BURST_S = 5
LONGEST_TTFT_S = 10.0
"""That class P2 may promise."""


@contextmanager
def terms(world: World, tenant: str, **spec: object) -> Iterator[None]:
    """The Tenant on other terms inside the block."""
    before = world.kubectl.get("tenant", tenant)
    obj = {"apiVersion": before["apiVersion"], "kind": "Tenant", "metadata": {"name": tenant}}
    world.kubectl.apply(obj | {"spec": before["spec"] | spec})
    try:
        yield
    finally:
        world.kubectl.apply(obj | {"spec": before["spec"]})


def limited(load: Load) -> int:
    return sum("429" in (one.trouble or "") for one in load.account().sent)


def admitted_in(account: Account, begin_s: float, end_s: float) -> int:
    return sum(one.trouble is None and begin_s <= one.at_s + one.took_s < end_s for one in account.sent)


def test_a_limit_is_an_error_that_the_openai_client_knows_and_heals_with_the_object(world: World) -> None:
    with world.serving("limited"):
        with terms(world, "acme", limits={"requestsPerMinute": 1, "burst": "60s"}):

            def refused() -> openai.RateLimitError | None:
                try:
                    world.ask("limited")
                except openai.RateLimitError as error:
                    return error
                return None

            error = until(refused, "a refused request", 30)
            assert error is not None
            assert "1 requests a minute (spec.limits.requestsPerMinute)" in error.message
            assert int(error.response.headers["retry-after"]) > 1
            assert error.response.headers["x-ratelimit-limit-requests"] == "1"

        def answered() -> bool:
            try:
                return bool(world.ask("limited"))
            except openai.RateLimitError:
                return False

        until(answered, "an answer after the limit went", 20)


def test_two_gateways_admit_what_one_limit_says_and_a_killed_one_changes_nothing(
    world: World, measured: Measured
) -> None:
    per_minute = 120
    gateways = world.select("pods", GATEWAYS, SYSTEM)
    assert len(gateways) == 2
    limits = {"requestsPerMinute": per_minute, "burst": f"{BURST_S}s"}
    with world.serving("counted", replicas=2), terms(world, "acme", limits=limits):
        with Load(world.url, world.keys["acme"], "counted", clients=12, max_tokens=1) as load:
            until(lambda: limited(load) > 20, "the limit reached", 60)
            begin_s = time.monotonic()
            time.sleep(30)  # the quantity measured is a number of admissions in a time
            killed_s = time.monotonic()
            world.kill(gateways[0]["metadata"]["name"], SYSTEM)
            time.sleep(30)
            end_s = time.monotonic()
        world.kubectl("-n", SYSTEM, "rollout", "status", "deployment/foretide-gateway", "--timeout=120s")
    account = load.account()
    for name, first_s, last_s in (("two gateways", begin_s, killed_s), ("one killed", killed_s, end_s)):
        allowed = per_minute / 60 * (last_s - first_s)
        admitted = admitted_in(account, first_s, last_s)
        measured(f"admitted, {name}", f"{admitted} of {allowed:.0f}")
        assert admitted == pytest.approx(allowed, abs=6)
    broken = [one for one in account.sent if one.trouble is not None and "429" not in one.trouble]
    measured("requests that the killed gateway carried", str(len(broken)))
    assert len(broken) <= 12, account.troubles


def sla(world: World, ttft_s: float) -> float:
    """The SLA `patient`, with this target."""
    world.kubectl.apply(resource("SLA", "patient", "demo", priority="P2", targets={"ttft": f"{ttft_s * 1000:.0f}ms"}))
    return ttft_s


def test_one_tenant_floods_a_service_and_another_keeps_its_sla(world: World, measured: Measured) -> None:
    small = {"maxModelLen": 1024, "kvCache": "128Mi", "maxNumSeqs": 2}
    sla(world, LONGEST_TTFT_S)
    shared = world.serving("shared", engine=small, sla="patient")
    with shared, terms(world, "rival", namespaces=["elsewhere", "demo"]):
        rival = world.keys["rival"]

        def seen() -> bool:
            return any(one.id.endswith("shared") for one in world.client("rival").models.list())

        until(seen, "the second tenant may use the service", 30)
        with Load(world.url, rival, "demo/shared", clients=1, stream=True) as alone:
            until(lambda: alone.answered >= 5, "answers without a flood", 60)
        # The machine decides how long an answer takes; ten of them is what a queue may cost its tenants.
        took_s = median(one.took_s for one in alone.account().sent)
        target_s = sla(world, min(LONGEST_TTFT_S, 10 * took_s))
        with Load(world.url, world.keys["acme"], "shared", clients=96, stream=True) as flood:
            until(lambda: flood.answered >= 12, "the flood", 120)
            with Load(world.url, rival, "demo/shared", clients=1, stream=True) as beside:
                until(lambda: beside.answered >= 10, "answers beside a flood", 120)
    kept = {name: load.account().within(target_s) for name, load in (("beside", beside), ("flood", flood))}
    first_s = median(one.first_s for one in beside.account().sent if one.first_s is not None)
    measured(
        "first token beside a flood",
        f"{first_s:.2f} s; within the SLA's {target_s:.2f} s: beside {kept['beside']:.0%}, flood {kept['flood']:.0%}",
    )
    assert not beside.account().troubles
    assert kept["beside"] >= 0.9
    assert kept["flood"] < kept["beside"] / 2
