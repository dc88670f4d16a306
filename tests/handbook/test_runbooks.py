"""Each alert that we ship has its section in docs/runbooks.md, and tells where it is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.charts.test_foretide import objects
from tests.handbook.test_links import anchors

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs/runbooks.md"
KNOWN_KIND = "monitoring.coreos.com/v1/PrometheusRule"


def of_the_chart() -> dict[str, dict[str, str]]:
    """Alert → its annotations."""
    groups = yaml.safe_load((ROOT / "charts/foretide/monitoring/rules.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return {rule["alert"]: rule["annotations"] for rule in rules if "alert" in rule}


def of_the_example() -> dict[str, dict[str, str]]:
    documents = yaml.safe_load_all((ROOT / "examples/alerts.yaml").read_text())
    policies = [one for one in documents if one["kind"] == "AlertPolicy"]
    return {rule["name"]: rule for policy in policies for rule in policy["spec"]["rules"]}


def test_every_alert_names_its_own_section_of_the_runbooks() -> None:
    there = anchors(RUNBOOKS)
    alerts = of_the_chart() | of_the_example()
    assert len(alerts) >= 9
    for name, texts in alerts.items():
        assert name.lower() in there, f"docs/runbooks.md has no section '{name}'"
        assert texts["runbook"].endswith(f"docs/runbooks.md#{name.lower()}")


def test_every_section_of_the_runbooks_is_about_an_alert_that_is_there() -> None:
    sections = re.findall(r"^## (.+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert set(sections) == {*of_the_chart(), *of_the_example(), "Your own rules"}


def test_with_a_handbook_alerts_have_the_address_of_their_section() -> None:
    flags = ["--set", "prometheusRule.enabled=true", "--api-versions", KNOWN_KIND]
    found = objects(*flags, "--set", "prometheusRule.handbookUrl=https://docs.example.com/foretide/")
    rule = next(one for one in found if one["kind"] == "PrometheusRule")
    urls = {
        one["alert"]: one["annotations"]["runbook_url"]
        for group in rule["spec"]["groups"]
        for one in group["rules"]
        if "alert" in one
    }
    assert urls == {name: f"https://docs.example.com/foretide/runbooks.html#{name.lower()}" for name in of_the_chart()}
