"""A real Prometheus with what the chart gives it: rules evaluate, Grafana's queries answer, history is read."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client import generate_latest

from controllers.capacity_forecast.board import ForecastBoard
from controllers.history.interface import ServiceId
from controllers.history.prometheus import PrometheusHistory
from controllers.runtime.metrics import Metrics as OperatorMetrics
from e2e.cluster import packages
from e2e.cluster.errors import UnsuitableHost
from e2e.cluster.process import Process
from e2e.cluster.progress import Progress
from e2e.cluster.shell import run
from e2e.ports import free_port
from forecasting.standing import Forecasted, Schedule
from gateway.metrics import Metrics as GatewayMetrics
from tests.charts.test_foretide import objects
from tests.controllers.capacity_forecast.test_board import Inline
from tests.controllers.running import Keys
from tests.waiting import eventually_blocking

MINUTES = 240
SERVICE = {"namespace": "demo", "service": "chat"}
GAP = range(60, 80)
"""Minutes in which nobody scraped."""


@pytest.fixture(scope="module")
def programs() -> Path:
    """Folder of prometheus and promtool."""
    try:
        return packages.unpacked("prometheus", Progress()) / "usr/bin"
    except UnsuitableHost as error:
        pytest.skip(str(error))


def rules() -> dict[str, Any]:
    """As the chart renders them."""
    flags = ("--set", "prometheusRule.enabled=true", "--api-versions", "monitoring.coreos.com/v1/PrometheusRule")
    spec: dict[str, Any] = next(obj["spec"] for obj in objects(*flags) if obj["kind"] == "PrometheusRule")
    return spec


@pytest.fixture(scope="module")
def rule_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    # Evaluated at once instead of every 30 s.
    groups = [group | {"interval": "1s"} for group in rules()["groups"]]
    path.write_text(yaml.safe_dump({"groups": groups}))
    return path


def queries() -> Iterator[str]:
    """Of all panels, with what a person may choose filled in."""
    config = next(
        obj for obj in objects("--set", "grafana.enabled=true") if obj["metadata"]["name"] == "foretide-dashboards"
    )
    for panel in json.loads(config["data"]["foretide-services.json"])["panels"]:
        for target in panel["targets"]:
            filled = target["expr"].replace("$namespace", "demo").replace("$service", "chat")
            yield filled.replace("$__rate_interval", "5m")


# --- a past and a present ---------------------------------------------------------------------------------------------


def past(end_s: int) -> str:
    """OpenMetrics of four hours: each minute 60 requests of 100 input and 50 output tokens, a fifth of them late."""
    each = {
        "arrivals": 60,
        "completed": 60,
        "input_tokens": 6000,
        "output_tokens": 3000,
    }
    families: dict[str, list[tuple[dict[str, str], int]]] = {
        f"foretide_gateway_{name}": [({}, rate)] for name, rate in each.items()
    }
    families["foretide_gateway_requests"] = [({"code": "200"}, 57), ({"code": "503"}, 3)]
    families["foretide_gateway_sla_requests"] = [
        ({"target": "ttft", "met": "true"}, 48),
        ({"target": "ttft", "met": "false"}, 12),
    ]
    lines = []
    for family, series in families.items():
        lines.append(f"# TYPE {family} counter")
        lines += [_sample(f"{family}_total", labels, rate, end_s, m) for labels, rate in series for m in _minutes()]
    lines.append("# TYPE foretide_gateway_ttft_seconds histogram")
    for bound, rate in (("0.5", 48), ("1.0", 60), ("+Inf", 60)):
        lines += [_sample("foretide_gateway_ttft_seconds_bucket", {"le": bound}, rate, end_s, m) for m in _minutes()]
    for name, value in (("waiting", 2), ("open_streams", 3), ("endpoints", 1)):
        lines.append(f"# TYPE foretide_gateway_{name} gauge")
        labels = {"state": "ready"} if name == "endpoints" else {}
        lines += [_sample(f"foretide_gateway_{name}", labels, 0, end_s, m, value) for m in _minutes()]
    return "\n".join([*lines, "# EOF", ""])


def _minutes() -> list[int]:
    return [minute for minute in range(MINUTES + 1) if minute not in GAP]


def _sample(name: str, more: dict[str, str], rate: int, end_s: int, minute: int, base: int = 0) -> str:
    labels = ",".join(f'{key}="{value}"' for key, value in (SERVICE | more).items())
    return f"{name}{{{labels}}} {base + rate * minute} {end_s - 60 * (MINUTES - minute)}"


def present() -> bytes:
    """The pages of an operator that leads and of a gateway that has just answered."""
    gateway, operator = GatewayMetrics(), OperatorMetrics()
    gateway.arrivals.labels(*SERVICE.values()).inc()
    gateway.ttft.labels(*SERVICE.values()).observe(0.1)
    operator.leader.labels("foretide-operator").set(1)
    return generate_latest(gateway.registry) + generate_latest(operator.registry)


@pytest.fixture(scope="module")
def page() -> Iterator[int]:
    """The port of who shows the present."""
    body = present()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """The test's own report is enough."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@dataclass
class Prometheus:
    """A server that may be taken away and brought back."""

    process: Process
    command: Sequence[str | Path]
    port: int
    end_s: int
    """Of its past."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process.start(self.command)
        eventually_blocking(self._answers, "Prometheus is ready", 60)

    def _answers(self) -> bool:
        self.process.check()
        return _answers(self.port)

    def get(self, path: str, **asked: object) -> Any:
        query = urllib.parse.urlencode(asked)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]

    def value(self, query: str) -> float:
        """Of one series, at the end of the past."""
        (series,) = self.get("query", query=query, time=self.end_s)["result"]
        return float(series["value"][1])


@pytest.fixture(scope="module")
def prometheus(
    programs: Path, rule_file: Path, page: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    folder, end_s = tmp_path_factory.mktemp("prometheus"), int(time.time()) // 600 * 600 - 600
    (folder / "past.txt").write_text(past(end_s))
    data = folder / "data"
    run([programs / "promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "past.txt", data])
    scraped = {"job_name": "foretide", "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{page}"]}]}
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump({"rule_files": [str(rule_file)], "scrape_configs": [scraped]}))
    run([programs / "promtool", "check", "config", config])
    port = free_port()
    flags = (f"--config.file={config}", f"--storage.tsdb.path={data}", f"--web.listen-address=127.0.0.1:{port}")
    server = Prometheus(Process("prometheus", folder, leash=True), [programs / "prometheus", *flags], port, end_s)
    try:
        server.start()
        yield server
    finally:
        server.process.stop()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


# --- what it makes of it ----------------------------------------------------------------------------------------------


def test_it_loads_all_rules_and_evaluates_each_without_an_error(prometheus: Prometheus) -> None:
    wanted = [rule.get("record") or rule["alert"] for group in rules()["groups"] for rule in group["rules"]]

    def loaded() -> list[Any]:
        return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    eventually_blocking(lambda: all(rule["health"] != "unknown" for rule in loaded()), "each rule was evaluated")
    assert sorted(rule["name"] for rule in loaded()) == sorted(wanted)
    assert {(rule["health"], rule.get("lastError", "")) for rule in loaded()} == {("ok", "")}


def test_rules_come_to_what_happened(prometheus: Prometheus) -> None:
    records = {
        rule["record"]: rule["expr"] for group in rules()["groups"] for rule in group["rules"] if "record" in rule
    }
    assert prometheus.value(records["foretide:service_arrivals:rate5m"]) == pytest.approx(1.0)
    assert prometheus.value(records["foretide:service_output_tokens:rate5m"]) == pytest.approx(50.0)
    assert prometheus.value(records["foretide:service_errors:ratio_rate5m"]) == pytest.approx(0.05)
    assert prometheus.value(records["foretide:service_ttft_met:ratio_rate5m"]) == pytest.approx(0.8)
    assert 0.5 < prometheus.value(records["foretide:service_ttft_seconds:p95_5m"]) <= 1.0


def test_every_query_of_the_dashboard_answers_without_an_error(prometheus: Prometheus) -> None:
    asked = list(queries())
    assert len(asked) > 5
    for query in asked:
        result = prometheus.get("query", query=query, time=prometheus.end_s)["result"]
        assert result or "foretide_reconciles" in query, query
        prometheus.get("query_range", query=query, start=prometheus.end_s - 3600, end=prometheus.end_s, step=15)


def test_it_reads_the_pages_of_our_processes(prometheus: Prometheus) -> None:
    def up() -> bool:
        return any(one["health"] == "up" for one in prometheus.get("targets")["activeTargets"])

    eventually_blocking(up, "the page was read")
    (series,) = prometheus.get("query", query="foretide_gateway_arrivals_total")["result"]
    assert series["value"][1] == "1"
    assert prometheus.get("query", query="foretide_leader")["result"]


async def test_the_operator_reads_its_history_of_it_with_the_gaps(prometheus: Prometheus) -> None:
    history = PrometheusHistory(prometheus.url)
    start_s = prometheus.end_s - 60 * MINUTES
    counts = await history.read(ServiceId("demo", "chat"), start_s, prometheus.end_s, 600)
    history.close()
    gap = [GAP.start <= 10 * step and 10 * (step + 1) <= GAP.stop for step in range(MINUTES // 10)]
    np.testing.assert_array_equal(np.isnan(counts.arrivals), gap)
    np.testing.assert_allclose(counts.arrivals[~np.isnan(counts.arrivals)], 600, rtol=0.12)
    assert np.nansum(counts.output_tokens) == pytest.approx(50 * np.nansum(counts.completed), rel=1e-6)


async def test_taken_away_it_leaves_the_last_forecast_and_is_read_again_when_it_is_back(prometheus: Prometheus) -> None:
    now_s, chat = float(prometheus.end_s), ServiceId("demo", "chat")
    schedule = Schedule(step_s=300.0, refresh_s=300.0, history_s=60.0 * MINUTES)
    history = PrometheusHistory(prometheus.url)
    board = ForecastBoard(history, Inline(), Keys(), schedule, clock=lambda: now_s)
    board.follow(chat, lead_time_s=300.0)

    async def said() -> Forecasted:
        await board.look()
        view = board.view(chat)
        assert view is not None
        return view

    before = await said()
    assert (before.reason, before.trusted) == ("Calibrated", True)
    await asyncio.to_thread(prometheus.process.stop)
    now_s += 300.0
    without = await said()
    assert (without.reason, without.trusted) == ("HistoryUnavailable", True)
    assert without.forecast == before.forecast
    await asyncio.to_thread(prometheus.start)
    now_s += 300.0
    assert (await said()).reason == "Calibrated"
    history.close()


# --- alerts -----------------------------------------------------------------------------------------------------------


def test_alerts_fire_when_they_should_and_only_then(programs: Path, rule_file: Path) -> None:
    waiting = 'foretide_gateway_waiting{namespace="demo", service="chat"}'
    labels = {"severity": "warning", "namespace": "demo", "service": "chat"}

    def at(minute: int, alert: str, expected: list[dict[str, str]]) -> dict[str, Any]:
        found = [{"exp_labels": one} for one in expected]
        return {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": found}

    leads = {"series": 'foretide_leader{lease="foretide-operator"}', "values": "1x6 0x20"}
    cuts = {"series": 'foretide_leader{lease="foretide-gpu-pools"}', "values": "1x30"}
    groups = [group | {"rules": [_without_words(rule) for rule in group["rules"]]} for group in rules()["groups"]]
    plain = rule_file.with_name("plain.yaml")
    plain.write_text(yaml.safe_dump({"groups": groups}))
    story = {
        "interval": "1m",
        "input_series": [{"series": waiting, "values": "0x4 3x20"}, leads, cuts],
        "alert_rule_test": [
            at(8, "ForetideRequestsWait", []),
            at(12, "ForetideRequestsWait", [labels]),
            at(5, "ForetideOperatorHasNoLeader", []),
            at(12, "ForetideOperatorHasNoLeader", [{"severity": "critical", "lease": "foretide-operator"}]),
        ],
    }
    cases = {"rule_files": [str(plain)], "evaluation_interval": "30s", "tests": [story]}
    path = rule_file.with_name("cases.yaml")
    path.write_text(yaml.safe_dump(cases))
    assert "SUCCESS" in run([programs / "promtool", "test", "rules", path])
    assert "SUCCESS" in run([programs / "promtool", "check", "rules", rule_file])


def _without_words(rule: dict[str, Any]) -> dict[str, Any]:
    """promtool compares annotations, too, which people may reword."""
    return {key: value for key, value in rule.items() if key != "annotations"}
