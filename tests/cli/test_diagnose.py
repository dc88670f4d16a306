"""`foretide diagnose`: what a person reads at night, and what programs get."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from cli.diagnose_text import Picture, diagnosis_lines
from cli.fleet import Service
from controllers.plans.healing.diagnose import diagnose
from controllers.plans.healing.objects import view_of
from tests.cli.cluster import AT, FakeKubectl, chat, demo, run

NOON = datetime(2026, 3, 2, 12, 5, tzinfo=UTC)

SLOW = {
    "cause": "WorkerSlow",
    "errorClass": "System",
    "since": AT,
    "workers": ["chat-7f3c9-x2"],
    "affected": 1,
    "nodes": ["node-2"],
    "evidence": "chat-7f3c9-x2: latency 0.410 s, 10.8 × the 0.038 s elsewhere: out for 10 s, 1 of 8.",
    "next": "It was tried lately; each further attempt waits longer.",
    "advice": "Compare its node with those of its siblings: clocks, neighbours, GPU faults, throttling.",
    "effect": "A fresh worker is as fast as its siblings; if it is slow again on the same node, it is the node.",
}
RESTARTED = {
    "time": AT,
    "cause": "WorkerSlow",
    "remedy": "RestartWorker",
    "worker": "chat-7f3c9-x1",
    "node": "node-2",
    "reason": "slow",
    "outcome": "NotHelped",
    "checked": AT,
}

TEXT = """\
demo/chat: 1 cause found; 8 ready of 8 wanted, 9 exist

  cause     WorkerSlow (System) since 11:58
  evidence  chat-7f3c9-x2: latency 0.410 s, 10.8 × the 0.038 s elsewhere: out
            for 10 s, 1 of 8.
  done      11:58 restarted worker chat-7f3c9-x1 on node-2, it did not help
  next      It was tried lately; each further attempt waits longer.
  advice    Compare its node with those of its siblings: clocks, neighbours, GPU
            faults, throttling.
  effect    A fresh worker is as fast as its siblings; if it is slow again on
            the same node, it is the node."""


def slow() -> dict[str, Any]:
    service = chat()
    service["spec"]["accelerator"] = {"cpu": {}}
    service["status"]["health"] = {"lastGood": "7f3c9", "findings": [SLOW], "actions": [RESTARTED]}
    return service


def killed(name: str = "chat-55aa0-k1") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "demo",
            "labels": {"foretide.dev/inference-service": "chat", "foretide.dev/revision": "55aa0"},
        },
        "spec": {"nodeName": "node-1"},
        "status": {
            "containerStatuses": [
                {
                    "restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                }
            ]
        },
    }


def cluster(service: dict[str, Any], *pods: dict[str, Any], errors: dict[str, str] | None = None) -> FakeKubectl:
    made = demo()
    made.objects["inferenceservices.foretide.dev"] = [service]
    made.objects |= {"pods": list(pods), "nodes": []}
    made.errors |= errors or {}
    return made


def told(service: dict[str, Any], *pods: dict[str, Any]) -> str:
    view = view_of(service, pods, ())
    return "\n".join(diagnosis_lines(Picture(Service(service), view, tuple(diagnose(view, NOON.timestamp()))), NOON))


def test_what_the_operator_found_and_did_is_told_in_its_words() -> None:
    assert told(slow()) == TEXT


def test_what_pods_show_beside_it_is_found_by_the_operator_s_own_function() -> None:
    said = told(slow(), killed())
    assert "2 causes found" in said
    assert "cause     OutOfMemory (Resource)" in said
    assert "next      the operator has not told of it yet" in said


def test_where_healing_is_off_nothing_is_promised() -> None:
    service = slow()
    service["spec"]["healing"] = {"mode": "off"}
    del service["status"]["health"]
    assert "next      nothing: spec.healing.mode is off" in told(service, killed())


def test_a_service_that_is_well_says_so_and_what_was_done_before() -> None:
    service = slow()
    service["status"]["health"] = {"actions": [RESTARTED | {"outcome": "Helped"}]}
    assert told(service) == (
        "demo/chat: nothing is found wrong; 8 ready of 8 wanted, 9 exist\n"
        "\n"
        "  before  11:58 restarted worker chat-7f3c9-x1 on node-2, it helped"
    )


def test_what_an_alert_was_answered_is_told_last() -> None:
    service = slow()
    del service["status"]["health"]
    causes = [{"cause": "WorkerHung", "evidence": "no step for 2.4 s", "advice": "Read its log."}]
    causes.append({"cause": "AtMaximum", "evidence": "8 of 8 are wanted", "advice": "Raise it."})
    answer = {"alert": "Broken", "policy": "demo/watch", "since": AT, "time": AT, "causes": causes}
    service["status"]["diagnosis"] = answer
    assert told(service).splitlines()[2:] == [
        "  alert     'Broken' of demo/watch asked what is wrong; answered 11:58",
        "  cause     WorkerHung",
        "  evidence  no step for 2.4 s",
        "  advice    Read its log.",
        "  cause     AtMaximum",
        "  evidence  8 of 8 are wanted",
        "  advice    Raise it.",
    ]
    assert json.loads(run(cluster(service), "diagnose", "chat", "-o", "json").stdout)["answer"] == answer


def test_no_line_is_longer_than_80_columns() -> None:
    service = slow()
    service["status"]["health"]["findings"][0] = SLOW | {"evidence": "x" * 40 + " " + "chat-worker " * 60}
    assert max(map(len, told(service, killed("n" * 60)).splitlines())) <= 80


def test_json_holds_findings_actions_and_what_is_seen() -> None:
    said = json.loads(run(cluster(slow(), killed()), "diagnose", "chat", "-o", "json").stdout)
    assert [one["cause"] for one in said["findings"]] == ["WorkerSlow"]
    assert [one["cause"] for one in said["seen"]] == ["OutOfMemory"]
    assert said["seen"][0]["workers"] == ["chat-55aa0-k1"]
    assert [one["outcome"] for one in said["actions"]] == ["NotHelped"]
    assert said["mode"] == "act"
    assert said["trouble"] is None


def test_who_may_not_read_nodes_is_told_and_sees_the_rest() -> None:
    forbidden = {"nodes": "Error from server (Forbidden): nodes is forbidden"}
    shown = run(cluster(slow(), errors=forbidden), "diagnose", "chat")
    assert "nodes could not be read" in shown.stderr
    assert "WorkerSlow" in shown.stdout
