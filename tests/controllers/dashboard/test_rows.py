"""The fleet as rows: what is shown, found, ordered and paged."""

from __future__ import annotations

from typing import Any

from controllers.dashboard.rows import PAGE_SIZE, Query, fleet_page, service_detail, service_row, tenant_rows


def service(name: str, namespace: str = "demo", ready: int = 1, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Servable", "status": "True", "reason": "Answered", "message": "It answers."}]
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"model": "smollm", "scaling": {"max": 4, "policy": "predictive"}},
        "status": {"conditions": conditions, "readyReplicas": ready, "replicas": ready, "tenant": "acme", **status},
    }


def forecast(load: str = "12.5") -> dict[str, Any]:
    return {
        "metadata": {"namespace": "demo", "name": "chat"},
        "status": {"load": load, "plannedReplicas": 3, "leadTime": "5m"},
    }


def names(page: dict[str, Any]) -> list[str]:
    return [row["name"] for row in page["items"]]


def test_a_service_that_nobody_looked_at_yet_is_unknown_and_not_broken() -> None:
    row = service_row({"metadata": {"namespace": "a", "name": "b"}, "spec": {"model": "m"}}, None)
    assert (row["servable"], row["policy"], row["replicas"], row["desiredReplicas"]) == ("Unknown", "fixed", 0, None)


def test_a_row_joins_the_service_with_its_forecast() -> None:
    row = service_row(service("chat", desiredReplicas=2), forecast())
    assert (row["loadTokensPerS"], row["plannedReplicas"], row["desiredReplicas"], row["policy"]) == (
        12.5, 3, 2, "predictive",
    )  # fmt: skip


def test_every_word_of_the_search_must_occur_in_name_namespace_model_or_tenant() -> None:
    fleet = [service("chat"), service("chat", "other"), service("code")]
    assert names(fleet_page(fleet, {}, Query(search="CHAT demo"))) == ["chat"]
    assert names(fleet_page(fleet, {}, Query(search="acme smollm"))) == ["chat", "chat", "code"]
    assert fleet_page(fleet, {}, Query(search="nothing"))["total"] == 0


def test_a_thousand_services_come_in_pages_and_a_page_too_far_is_the_last_one() -> None:
    fleet = [service(f"s{at:04}") for at in range(1000)]
    page = fleet_page(fleet, {}, Query(page=2))
    assert (page["total"], len(page["items"]), names(page)[0]) == (1000, PAGE_SIZE, f"s{PAGE_SIZE:04}")
    assert fleet_page(fleet, {}, Query(page=999))["page"] == 1000 // PAGE_SIZE


def test_rows_are_ordered_by_numbers_as_numbers_with_the_unknown_last() -> None:
    fleet = [service("a"), service("chat"), service("c", ready=10), service("d", ready=9)]
    by_load = fleet_page(fleet, {("demo", "chat"): forecast()}, Query(sort="load", descending=True))
    assert names(by_load)[0] == "chat"
    assert names(fleet_page(fleet, {}, Query(sort="replicas", descending=True)))[:2] == ["c", "d"]


def test_the_detail_carries_sla_targets_and_a_forecast_that_is_not_trusted_yet() -> None:
    sla = {
        "metadata": {"name": "fast"},
        "spec": {
            "priority": "P1",
            "targets": {"ttft": "500ms", "percentile": 99},
            "availability": "99.9%",
            "window": "7d",
        },
    }
    found = service_detail(service("chat"), forecast(), sla, None, {"total": 0, "items": []})
    assert found["sla"]["targets"] == [{"name": "TTFT", "value": "500ms"}]
    assert (found["forecast"]["trusted"], found["forecast"]["leadTime"]) == (False, "5m")


def test_what_an_alert_asks_of_a_service_and_what_it_was_answered_are_shown_while_the_status_has_them() -> None:
    floor = {"workers": 6, "until": "2026-03-02T12:30:00Z", "message": "alert 'QueueGrows' fires."}
    cause = {"cause": "WorkerHung", "evidence": "no step for 2.4 s", "advice": "Read its log."}
    asked = service("chat", scaling={"policy": "reactive", "floor": floor}, diagnosis={"causes": [cause]})
    found = service_detail(asked, None, None, None, {"total": 0, "items": []})
    assert (found["floor"], found["answer"]) == (floor, {"causes": [cause]})
    for quiet in (service("chat"), service("chat", scaling={"policy": "reactive"})):
        found = service_detail(quiet, None, None, None, {"total": 0, "items": []})
        assert (found["floor"], found["answer"]) == (None, None)


def test_a_tenant_shows_what_the_services_of_its_namespaces_use() -> None:
    tenant = {"metadata": {"name": "acme"}, "spec": {"namespaces": ["demo"], "quota": {"replicas": 8}}}
    fleet = [service("a", ready=2, desiredReplicas=3), service("b", "elsewhere", ready=5)]
    (row,) = tenant_rows([tenant], fleet)["items"]
    assert (row["services"], row["replicas"], row["desiredReplicas"], row["replicaQuota"]) == (1, 2, 3, 8)
    assert row["borrowed"] is None
    (row,) = tenant_rows([tenant | {"status": {"fairShare": {"standing": "gpus 71%/50%"}}}], fleet)["items"]
    assert row["borrowed"] == "gpus 71%/50%"
