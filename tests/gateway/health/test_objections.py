"""What a gateway tells of its endpoints: exceptions only, with the evidence, and for several processes as for one."""

from __future__ import annotations

from typing import Any

from gateway.health import passive
from gateway.health.load import Evidence, Loss
from gateway.health.objections import joined, objection
from gateway.health.passive import Health, HealthPolicy, Verdict, Why

POLICY = HealthPolicy()
SLOW = Why("LatencyOutlier", "latency 0.410 s", ", 10.8 × the 0.038 s elsewhere")


def ejected_at(now_s: float, before: Health = Health()) -> Verdict:  # noqa: B008 (frozen)
    return passive.eject(before, now_s, POLICY, SLOW, endpoints=4, ejected=0)


def told(verdict: Verdict | None, now_s: float, loss: Loss | None = None, lost_at_s: float = 0.0) -> Any:
    health = verdict.health if verdict else Health()
    return objection(health, loss, lost_at_s, verdict, 100.0, now_s, POLICY)


def test_an_endpoint_that_is_well_is_not_told() -> None:
    assert told(None, 100.0) is None


def test_an_ejection_is_told_until_it_has_all_of_its_share_again() -> None:
    once = ejected_at(100.0)
    said = told(once, 101.0)
    assert said == {
        "state": "ejected",
        "reason": "LatencyOutlier",
        "since_s": 1.0,
        "message": "latency 0.410 s, 10.8 × the 0.038 s elsewhere: out for 5 s, 1 of 4",
        "times": 1,
    }
    assert told(once, 106.0)["state"] == "returning"
    assert told(once, 115.1) is None
    twice = ejected_at(107.0, once.health)
    assert (told(twice, 108.0)["times"], told(twice, 108.0)["since_s"]) == (2, 8.0)


def test_a_loss_is_worse_than_an_ejection() -> None:
    said = told(ejected_at(100.0), 103.0, Loss(Evidence.HUNG, "3 requests and no step for 2.0 s > 1.8 s"), 101.5)
    assert (said["state"], said["reason"], said["since_s"]) == ("lost", "hung", 1.5)


def one(state: str, times: int = 0, since_s: float = 3.0) -> dict[str, Any]:
    return {"state": state, "reason": "x", "since_s": since_s, "message": "", "times": times}


def test_a_loss_counts_when_all_processes_say_so_and_an_ejection_when_one_does() -> None:
    assert joined([]) == {}
    assert joined([{"demo/chat": {"a": one("lost")}}, {}]) == {}
    both = joined([{"demo/chat": {"a": one("lost", since_s=5.0)}}, {"demo/chat": {"a": one("lost", since_s=2.0)}}])
    assert both == {"demo/chat": {"a": one("lost", since_s=2.0)}}
    assert joined([{"demo/chat": {"a": one("ejected", 2)}}, {}]) == {"demo/chat": {"a": one("ejected", 2)}}


def test_a_process_that_only_ejects_contradicts_one_that_says_lost() -> None:
    told_by_both = [{"demo/chat": {"a": one("lost")}}, {"demo/chat": {"a": one("returning", 1)}}]
    assert joined(told_by_both)["demo/chat"]["a"]["state"] == "returning"
