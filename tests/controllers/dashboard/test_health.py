"""One service's findings, remedies, rollout and alerts, in the words that the command uses."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.dashboard.health import MOST_ALERTS, alerts, health, rollout
from controllers.dashboard.rows import service_row
from tests.cli.test_diagnose import RESTARTED, SLOW

BARE: dict[str, Any] = {"metadata": {"namespace": "demo", "name": "chat"}, "spec": {"model": "m"}}
AT = "2026-03-02T11:58:00Z"


def with_status(**status: Any) -> dict[str, Any]:
    return {**BARE, "status": status}


def condition(type_: str, status: str) -> dict[str, str]:
    return {"type": type_, "status": status, "reason": "Why", "message": f"Because of {type_}."}


def alert(at: int, **more: Any) -> dict[str, Any]:
    subject = {"subject": "service/demo/chat", "severity": "P1", "state": "firing"}
    return {"fingerprint": f"f{at:03}", "rule": f"r{at:03}", "since": AT, "message": "m", **subject, **more}


def test_a_cause_has_its_own_remedies_beside_it_and_those_of_gone_causes_apart() -> None:
    hung = RESTARTED | {"cause": "WorkerHangs", "outcome": "Helped"}
    shown = health(with_status(health={"findings": [SLOW], "actions": [RESTARTED, hung]}))
    assert shown["summary"] == "1 cause found"
    told = "restarted worker chat-7f3c9-x1 on node-2"
    assert [one["told"] for one in shown["findings"][0]["done"]] == [f"{told}, it did not help"]
    assert [one["told"] for one in shown["before"]] == [f"{told}, it helped"]
    assert {key: shown["findings"][0][key] for key in ("evidence", "next", "advice", "effect")} == {
        key: SLOW[key] for key in ("evidence", "next", "advice", "effect")
    }


def test_without_a_cause_it_says_whether_the_service_is_well() -> None:
    assert health(BARE)["summary"] == "nothing is found wrong"
    assert health(with_status(conditions=[condition("Ready", "False")]))["summary"] == "no worker shows anything"


@pytest.mark.parametrize(("mode", "said"), [("advise", "does nothing"), ("off", "does not look for causes")])
def test_where_the_operator_may_not_act_the_page_says_so(mode: str, said: str) -> None:
    shown = health({**BARE, "spec": {"model": "m", "healing": {"mode": mode}}})
    assert said in shown["note"]
    assert health(BARE)["note"] is None


def test_a_rollout_has_its_step_only_while_traffic_is_compared() -> None:
    assert rollout(BARE) is None
    service = with_status(rollout={"phase": "Analysing", "summary": "b, step 2 of 2", "step": 1})
    service["spec"] = {"model": "m", "rollout": {"strategy": "canary", "steps": [{"weight": 5}, {"weight": 50}]}}
    shown = rollout(service)
    assert shown is not None
    assert (shown["step"], shown["message"], shown["verdicts"]) == ("2 of 2: weight 50 %", "b, step 2 of 2", [])
    service["status"]["rollout"]["phase"] = "RolledBack"
    over = rollout(service)
    assert over is not None
    assert over["step"] is None


def test_a_step_that_an_edit_has_taken_away_is_not_told() -> None:
    shown = rollout(with_status(rollout={"phase": "Analysing", "summary": "s", "step": 3}))
    assert shown is not None
    assert shown["step"] is None


def test_alerts_about_it_alone_are_shown_the_worst_first_and_not_all_of_a_storm() -> None:
    storm = [alert(at) for at in range(MOST_ALERTS + 5)]
    worst = alert(99, severity="P0", incident="i1")
    others = [alert(97, state="pending"), alert(98, subject="service/demo/code")]
    incident = {"id": "i1", "root": "node/gpu-3"}
    policy = {"status": {"alerts": [*storm, worst, *others], "incidents": [incident]}}
    shown = alerts([policy, {}], "demo", "chat")
    assert (shown["total"], len(shown["items"])) == (MOST_ALERTS + 6, MOST_ALERTS)
    assert (shown["items"][0]["rule"], shown["items"][0]["causes"]) == ("r099", ["node/gpu-3"])


def test_the_fleet_marks_only_conditions_that_hold() -> None:
    told = [condition("Degraded", "True"), condition("QualityDrift", "False"), condition("ScalingLimited", "True")]
    assert [one["type"] for one in service_row(with_status(conditions=told), None)["marks"]] == [
        "Degraded", "ScalingLimited",
    ]  # fmt: skip
    assert service_row(BARE, None)["marks"] == []


def test_the_fleet_marks_a_service_that_cannot_be_read_however_well_it_serves() -> None:
    unread = condition("Stalled", "True") | {"reason": "NotUnderstood"}
    assert service_row(with_status(conditions=[unread]), None)["marks"] == [
        {"type": "Stalled", "reason": "NotUnderstood", "message": unread["message"]}
    ]
    assert service_row(with_status(conditions=[condition("Stalled", "True")]), None)["marks"] == []


def test_words_of_a_later_operator_are_shown_as_they_are_given() -> None:
    later = RESTARTED | {"remedy": "Teleported", "outcome": "Vanished", "cause": SLOW["cause"]}
    shown = health(with_status(health={"findings": [SLOW | {"errorClass": "Quantum"}], "actions": [later]}))
    assert shown["findings"][0]["errorClass"] == "Quantum"
    assert [one["told"] for one in shown["findings"][0]["done"]] == ["Teleported: Vanished"]
    assert health({**BARE, "spec": {"model": "m", "healing": {"mode": "dream"}}})["note"] is None
    verdict = {"metric": "joy", "verdict": "Splendid", "message": "m"}
    told = rollout(with_status(rollout={"phase": "Musing", "summary": "s", "verdicts": [verdict], "step": 1}))
    assert told is not None
    assert (told["phase"], told["verdicts"], told["step"]) == ("Musing", [verdict], None)
