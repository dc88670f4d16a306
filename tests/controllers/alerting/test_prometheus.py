"""The same policy in a real Prometheus; its alerts through a real Alertmanager to the operator and on to a receiver."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from controllers.alerting.wiring import Wired
from controllers.plans.alerting import rule_files
from controllers.plans.alerting.readings import Budget
from controllers.runtime.health import Health
from controllers.runtime.metrics import Metrics
from controllers.runtime.queue import ReconcileQueue
from controllers.runtime.server import AdminServer
from crds.alert_policy import AlertPolicySpec
from crds.contract import METRIC_SERVICE_UNSERVABLE, OPERATOR_PATH_ALERTS
from e2e import monitoring
from tests.controllers.alerting.receivers import receiving
from tests.controllers.alerting.world import World
from tests.waiting import eventually

pytestmark = pytest.mark.prometheus
BUDGETS = {"chat": Budget(0.001, 30 * 86_400.0, "99.9% over 30d")}
EVERY_KIND = [
    {"name": "down", "severity": "P0", "metric": "unservable", "threshold": {"above": "0"}, "for": "1m"},
    {
        "name": "fails",
        "metric": "failures",
        "threshold": {"above": "0.05"},
        "keepFiring": "5m",
        "labels": {"team": "a"},
    },
    {"name": "quiet", "metric": "requests", "threshold": {"below": "500m", "over": "10m"}},
    {"name": "grows", "metric": "outputTokens", "trend": {"above": "2k", "over": "2h", "within": "1d"}},
    {"name": "odd", "metric": "answered", "anomaly": {"sigmas": "3.5", "direction": "below"}},
    {"name": "new", "metric": "inputTokens", "anomaly": {"falseAlarms": 12, "direction": "above"}},
    {"name": "budget", "burnRate": {}, "runbook": "{{ query `up` }} is text, and so is {{ $labels }}"},
]


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    monitoring.installed()


def groups(*rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    asked = AlertPolicySpec.model_validate({"rules": list(rules)} | spec)
    return rule_files.groups("demo", "watch", asked, BUDGETS)


@pytest.mark.parametrize("services", [None, ["chat"], ["chat", "other"]])
def test_prometheus_takes_every_kind_of_rule(tmp_path: Path, services: list[str] | None) -> None:
    said = monitoring.check_rules(groups(*EVERY_KIND, services=services), tmp_path)
    assert "SUCCESS: 10 rules found" in said


def test_the_rules_fire_on_what_they_are_about_and_carry_the_labels_of_our_own_alerts(tmp_path: Path) -> None:
    monitoring.check_rules(groups(*EVERY_KIND), tmp_path)
    of = '{namespace="demo",service="chat"}'
    counters = (
        "foretide_gateway_arrivals_total",
        "foretide_gateway_completed_total",
        "foretide_gateway_output_tokens_total",
    )
    came, answered, tokens = (f"{name}{of}" for name in counters)
    series = [
        {"series": f"{METRIC_SERVICE_UNSERVABLE}{of}", "values": "0x10 1x110"},
        # Ten requests a second, of which one in ten fails: a hundred times too fast for 99.9 %.
        {"series": came, "values": "0+600x120"},
        {"series": answered, "values": "0+540x120"},
        {"series": tokens, "values": "0+600x120"},
    ]

    def alerts(at: str, name: str, *labels: dict[str, str]) -> dict[str, Any]:
        plain = {"namespace": "demo", "service": "chat", "policy": "watch"}
        return {"eval_time": at, "alertname": name, "exp_alerts": [{"exp_labels": plain | one} for one in labels]}

    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "alert_rule_test": [
                    alerts("10m", "down"),
                    alerts("12m", "down", {"severity": "P0"}),
                    alerts("30m", "fails", {"severity": "P1", "team": "a"}),
                    alerts("30m", "quiet"),
                    alerts("100m", "grows"),
                    alerts(
                        "110m",
                        "budget",
                        {"severity": "P0", "window": "1h"},
                        {"severity": "P0", "window": "6h"},
                        {"severity": "P2", "window": "1d"},
                        {"severity": "P2", "window": "3d"},
                    ),
                ],
            }
        ],
    }
    said = _with_annotations(tests, tmp_path)
    assert "SUCCESS" in said


def _with_annotations(tests: dict[str, Any], folder: Path) -> str:
    """promtool compares annotations too; they are not what this is about."""
    file = folder / "rules.yaml"
    lines = yaml.safe_load(file.read_text())
    for group in lines["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations")
    file.write_text(yaml.safe_dump(lines))
    return monitoring.run_rule_tests(tests, folder)


# --- there and back ---------------------------------------------------------------------------------------------------
@asynccontextmanager
async def listening(wired: Wired) -> AsyncIterator[int]:
    """The operator's admin port."""
    server = AdminServer("127.0.0.1", 0, Health(ReconcileQueue(), {}), Metrics(), hooks=wired.hooks)
    await server.start()
    try:
        yield server.port
    finally:
        await server.stop()


@asynccontextmanager
async def exposing(values: dict[str, float]) -> AsyncIterator[int]:
    """A page of metrics."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(text="".join(f"{name} {value}\n" for name, value in values.items()))

    app = web.Application()
    app.router.add_get("/metrics", show)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def alertmanager_config(port: int, token: str) -> dict[str, Any]:
    hook = {
        "url": f"http://127.0.0.1:{port}{OPERATOR_PATH_ALERTS}",
        "send_resolved": True,
        "http_config": {"authorization": {"credentials": token}},
    }
    route = {"receiver": "foretide", "group_wait": "100ms", "group_interval": "1s", "repeat_interval": "1h"}
    return {"route": route, "receivers": [{"name": "foretide", "webhook_configs": [hook]}]}


def prometheus_config(scraped: int, alertmanager: str) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s", "external_labels": {"cluster": "here"}},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": "foretide", "honor_labels": True, "static_configs": [{"targets": [f"127.0.0.1:{scraped}"]}]}
        ],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
    }


async def test_a_real_prometheus_and_alertmanager_fire_the_policy_and_the_operator_tells_its_receiver(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "history.sqlite")
    world.secret("token", namespace="foretide-system", token="t0ken")
    world.service(servable=True)  # The operator itself sees nothing wrong: what is told came all the way round.
    down = {"name": "down", "severity": "P0", "metric": "unservable", "threshold": {"above": "0"}, "for": "1s"}
    values = {f'{METRIC_SERVICE_UNSERVABLE}{{namespace="demo",service="chat"}}': 1.0}
    async with contextlib.AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(receiving())
        hook = {"name": "hook", "webhook": {"url": receiver.url}}
        world.policy(hook, rules=[down], receive={"matchers": []}, grouping={"wait": "1s"})
        wired = await stack.enter_async_context(world.operator())
        port = await stack.enter_async_context(listening(wired))
        scraped = await stack.enter_async_context(exposing(values))
        monitoring.check_rules(groups(down, interval="1s"), tmp_path)
        manager = await _entered(stack, monitoring.alertmanager(tmp_path, alertmanager_config(port, "t0ken")))
        await _entered(stack, monitoring.prometheus(tmp_path, prometheus_config(scraped, manager)))
        await eventually(lambda: receiver.told, "a page", 90)
        (alert,) = receiver.came[0]["alerts"]
        assert (alert["labels"]["alertname"], alert["labels"]["service"]) == ("down", "chat")
        assert world.status()["alerts"][0]["external"] is True
        for name in values:
            values[name] = 0.0
        await eventually(lambda: [said for said, _ in receiver.told] == ["firing", "resolved"], "it is over", 90)
        assert len({incident for _, incident in receiver.told}) == 1


async def _entered(stack: contextlib.AsyncExitStack, manager: Any) -> str:
    """A blocking context manager, started and ended off the loop that serves its peers."""
    address: str = await asyncio.to_thread(manager.__enter__)
    stack.push_async_callback(asyncio.to_thread, manager.__exit__, None, None, None)
    return address
