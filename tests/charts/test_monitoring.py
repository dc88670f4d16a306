"""What the chart gives to Prometheus and Grafana: only where it is asked for, and only metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from controllers.runtime.metrics import Metrics as OperatorMetrics
from controllers.settings import load_settings
from crds import contract
from gateway.metrics import Metrics as GatewayMetrics
from tests.charts.test_foretide import CHART, objects

MONITORING = CHART / "monitoring"
Object = dict[str, Any]
GAUGES = {
    "foretide_gateway_endpoints",
    "foretide_gateway_in_flight",
    "foretide_gateway_open_streams",
    "foretide_gateway_waiting",
}
"""Made at each scrape (`gateway.fleet`), so they are in no registry."""


def families(registry: CollectorRegistry) -> set[str]:
    kinds = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {one.name + end for one in registry.collect() for end in kinds.get(one.type, ("",))}


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Names of all series that our processes show."""
    return families(GatewayMetrics().registry) | families(OperatorMetrics().registry) | GAUGES


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\bforetide_[a-z_]+", expression))


def rules() -> list[Object]:
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_rules_stand_where_they_are_asked_for_and_their_kind_is_known() -> None:
    flags = ["--set", "prometheusRule.enabled=true", "--set", "prometheusRule.labels.release=prometheus"]
    assert not any(obj["kind"] == "PrometheusRule" for obj in objects(*flags))
    known = objects(*flags, "--api-versions", "monitoring.coreos.com/v1/PrometheusRule")
    found = next(obj for obj in known if obj["kind"] == "PrometheusRule")
    assert found["metadata"]["labels"]["release"] == "prometheus"
    assert found["spec"] == yaml.safe_load((MONITORING / "rules.yaml").read_text())


def test_every_rule_reads_metrics_that_exist_or_records_made_before(known: set[str]) -> None:
    recorded: set[str] = set()
    for rule in rules():
        assert metrics_in(rule["expr"]) <= known, rule
        assert set(re.findall(r"foretide:[a-z0-9_:]+", rule["expr"])) <= recorded, rule
        recorded.add(rule.get("record", ""))
        if "alert" in rule:
            assert {"summary", "description"} <= rule["annotations"].keys()


def test_the_contract_names_metrics_that_the_gateway_shows(known: set[str]) -> None:
    names = {value for name, value in vars(contract).items() if name.startswith("METRIC_GATEWAY_")}
    assert len(names) == 5
    assert names <= known


def test_the_dashboard_is_what_grafana_imports_and_asks_for_metrics_that_exist(known: set[str]) -> None:
    config = next(
        obj for obj in objects("--set", "grafana.enabled=true") if obj["metadata"]["name"] == "foretide-dashboards"
    )
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(config["data"]["foretide-services.json"])
    assert dashboard["uid"] == "foretide-services"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    for panel in panels:
        assert panel["targets"]
        for target in panel["targets"]:
            assert metrics_in(target["expr"])
            assert metrics_in(target["expr"]) <= known
    asked = {one["name"] for one in dashboard["templating"]["list"]}
    assert asked == {"datasource", "namespace", "service"}


def test_nothing_of_it_stands_by_default() -> None:
    names = {obj["metadata"]["name"] for obj in objects()}
    assert "foretide-dashboards" not in names


# --- history ----------------------------------------------------------------------------------------------------------


def operator(*flags: str) -> Object:
    return next(
        obj
        for obj in objects(*flags)
        if obj["metadata"]["name"] == "foretide-operator" and "template" in obj.get("spec", {})
    )


def test_the_history_lives_with_the_pod_unless_it_gets_a_volume() -> None:
    plain = operator()
    assert plain["kind"] == "Deployment"
    volumes = {one["name"]: one for one in plain["spec"]["template"]["spec"]["volumes"]}
    assert volumes["history"]["emptyDir"]["sizeLimit"] == str(2 * 536870912)
    kept = operator("--set", "history.persistence.enabled=true", "--set", "history.persistence.storageClass=fast")
    assert kept["kind"] == "StatefulSet"
    claim = kept["spec"]["volumeClaimTemplates"][0]
    assert (claim["metadata"]["name"], claim["spec"]["storageClassName"]) == ("history", "fast")
    assert "history" not in {one["name"] for one in kept["spec"]["template"]["spec"]["volumes"]}
    mounts = kept["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {"name": "history", "mountPath": "/var/lib/foretide/history"} in mounts


def test_the_operator_reads_where_its_history_is_from(tmp_path: Path) -> None:
    flags = ["--set", "history.prometheusUrl=http://prometheus.monitoring:9090", "--set", "forecasting.stepSeconds=300"]
    config = next(obj for obj in objects(*flags) if obj["metadata"]["name"] == "foretide-operator" and "data" in obj)
    file = tmp_path / "operator.yaml"
    file.write_text(config["data"]["operator.yaml"])
    settings = load_settings(file)
    assert settings.history.prometheus_url == "http://prometheus.monitoring:9090"
    assert (settings.history.path, settings.history.max_bytes) == ("/var/lib/foretide/history", 512 * 2**20)
    assert (settings.forecasting.step_s, settings.forecasting.processes) == (300, 2)
