"""Routing on real workers: one that hangs, prompts that find their cache, and a fallback that says so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from openai import APIStatusError

from e2e.install import SYSTEM
from e2e.scenarios.world import World, until

Measured = Callable[[str, str], None]

FREEZE = "import os, signal; os.kill(-1, signal.SIGSTOP)"
THAW = "import os, signal; os.kill(-1, signal.SIGCONT)"
"""Every process of the container but the first and the one that says it: the engine."""


def gateway_metrics(world: World, name: str, **labels: str) -> float:
    """The sum of a metric over all gateways."""
    total = 0.0
    for pod in world.select("pods", "app.kubernetes.io/name=foretide-gateway", SYSTEM):
        path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}:8081/proxy/metrics"
        for line in world.kubectl("get", "--raw", path).splitlines():
            wanted = (f'{key}="{value}"' for key, value in labels.items())
            if line.startswith(f"foretide_gateway_{name}{{") and all(one in line for one in wanted):
                total += float(line.rsplit(" ", 1)[1])
    return total


def worker_metric(world: World, service: str, name: str) -> float:
    """The sum of a metric over all workers of a service."""
    total = 0.0
    for pod in world.pods(service):
        path = f"/api/v1/namespaces/demo/pods/{pod['metadata']['name']}:8001/proxy/metrics"
        for line in world.kubectl("get", "--raw", path).splitlines():
            if line.startswith(name + "{"):
                total += float(line.rsplit(" ", 1)[1])
    return total


def test_a_hung_engine_is_found_in_three_seconds_and_comes_back(world: World, measured: Measured) -> None:
    with world.serving("hanging", replicas=2):
        world.rolled("hanging", 2)
        with world.load("hanging") as load:
            until(lambda: load.answered >= 5, "answers under load")
            before = gateway_metrics(world, "losses_total", service="hanging")
            doomed = world.pods("hanging")[0]["metadata"]["name"]
            world.kubectl("-n", "demo", "exec", doomed, "--", "python3", "-c", FREEZE)
            frozen = time.monotonic()
            until(lambda: gateway_metrics(world, "losses_total", service="hanging") > before, "it is found", 20, 0.05)
            found_s = time.monotonic() - frozen
            measured("engine stopped → found by a gateway", f"{found_s:.1f} s")
            goal = load.answered + 10
            until(lambda: load.answered >= goal, "the other one answers")
            world.kubectl("-n", "demo", "exec", doomed, "--", "python3", "-c", THAW)
            until(lambda: gateway_metrics(world, "endpoints", service="hanging", state="lost") == 0, "it is back", 60)
        measured("while an engine was stopped", str(load.account()))
        assert not load.account().troubles
        assert found_s < 3.0


def test_equal_beginnings_find_the_cache(world: World, measured: Measured) -> None:
    rates = {}
    for policy in ("roundRobin", "prefix"):
        name = f"cached-{policy.lower()}"
        with world.serving(name, replicas=2, routing={"policy": policy}):
            world.rolled(name, 2)
            rates[policy] = hit_rate(world, name)
    measured("prefix cache hits, round robin → prefix", f"{rates['roundRobin']:.0%} → {rates['prefix']:.0%}")
    assert rates["prefix"] > rates["roundRobin"]


def hit_rate(world: World, service: str) -> float:
    """Three customers with a long beginning each, three questions each: of their prompt tokens, those found cached."""
    client = world.client()
    for question in ("What is in stock?", "What does it cost?", "When does it arrive?"):
        for customer in range(3):
            about = (
                f"You serve customer {customer}. " + "Be polite, be brief, and never promise what is not sure. " * 12
            )
            messages: Any = [{"role": "system", "content": about}, {"role": "user", "content": question}]
            client.chat.completions.create(model=service, messages=messages, max_tokens=2, temperature=0)
    hits = worker_metric(world, service, "vllm:prefix_cache_hits_total")
    return hits / worker_metric(world, service, "vllm:prefix_cache_queries_total")


def test_a_service_without_workers_is_answered_by_its_fallback_which_says_so(world: World, measured: Measured) -> None:
    with world.serving("modest"):
        proud = world.service("proud", replicas=0, fallbacks=[{"service": "modest", "maxTokens": 8}])
        world.kubectl.apply(proud)
        try:
            header = until(lambda: fallback_header(world, "proud"), "the fallback answers")
            measured("header of an answer by a fallback", header)
            assert header == "demo/modest; reason=no_endpoint; max_tokens=8"
            proud["spec"]["fallbacks"] = [{"service": "modets"}]
            world.kubectl.apply(proud)
            stalled = world.wait("inferenceservice/proud", "Stalled")
            assert stalled["reason"] == "FallbackNotFound", json.dumps(stalled)
            assert "did you mean 'modest'?" in stalled["message"]
        finally:
            world.kubectl("-n", "demo", "delete", "inferenceservice", "proud", "--ignore-not-found", "--timeout=120s")


def fallback_header(world: World, service: str) -> str:
    """As OpenAI's client sees it; empty while the service is not known yet."""
    try:
        got = world.client().chat.completions.with_raw_response.create(
            model=service, messages=[{"role": "user", "content": "Name a colour."}], max_tokens=64
        )
    except APIStatusError:
        return ""
    tokens = got.parse().usage
    assert tokens is not None
    assert tokens.completion_tokens <= 8
    return str(got.headers.get("x-foretide-fallback") or "")
