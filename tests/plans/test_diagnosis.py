"""An alert that asks what is wrong is answered once, with evidence and advice, and again when more shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controllers.plans.alerting.wishes import Floor, Question, Wishes
from controllers.plans.healing.values import Objection, Objections
from controllers.plans.quality import Drift, Measure
from controllers.plans.service import ServicePlan
from controllers.plans.snapshot import Revision, Snapshot
from tests.gen import EARLY, plan, service_spec, snapshot, target_of, tenant, with_workers, workers

NOW_S = 1000.0
ASKED = Question("CheckoutBroken", 960.0, "demo/watch")
HUNG = Objection("lost", "hung", 12.0, "3 requests and no step for 2.4 s > 1.8 s")


def service(question: Question | None = ASKED, *, status: Any = None, **fields: Any) -> Snapshot:
    seen = snapshot(spec=service_spec(replicas=2), status=status or {}, wishes=Wishes(question=question), **fields)
    target = target_of(seen)
    return with_workers(seen, Revision(target, 2, EARLY), workers=workers(target, 2))


def hung(seen: Snapshot) -> Snapshot:
    """All gateways say so of its first worker."""
    worker = seen.workers[0].name
    return replace(seen, objections=Objections({"g1": {worker: HUNG}, "g2": {worker: HUNG}}, age_s=0.5))


def diagnosed(made: ServicePlan) -> Any:
    assert made.status
    return made.status.get("diagnosis")


def events(made: ServicePlan) -> list[tuple[str, bool]]:
    return [(one.message, one.warning) for one in made.notes if one.reason == "Diagnosed"]


def causes(made: ServicePlan) -> list[str]:
    return [one["cause"] for one in diagnosed(made)["causes"]]


def test_nobody_asked_nothing_is_said() -> None:
    made = plan(hung(service(None)), now_s=NOW_S)
    assert diagnosed(made) is None
    assert events(made) == []


def test_the_answer_names_cause_evidence_and_advice_in_status_and_event() -> None:
    made = plan(hung(service()), now_s=NOW_S)
    said = diagnosed(made)
    assert (said["alert"], said["policy"]) == ("CheckoutBroken", "demo/watch")
    assert (said["since"], said["time"]) == ("1970-01-01T00:16:00Z", "1970-01-01T00:16:40Z")
    first = said["causes"][0]
    assert first["cause"] == "WorkerHung"
    assert "no step for 2.4 s" in first["evidence"]
    assert first["advice"]
    ((message, warning),) = events(made)
    assert message.startswith("Alert 'CheckoutBroken': WorkerHung: ")
    assert first["advice"] in message
    assert warning


def test_where_healing_is_off_it_is_answered_all_the_same() -> None:
    seen = hung(service())
    off = service_spec(replicas=2, healing={"mode": "off"})
    assert causes(plan(replace(seen, spec=off), now_s=NOW_S)) == ["WorkerHung"]


def test_each_alert_is_answered_once_and_the_answer_stays_when_it_is_over() -> None:
    first = plan(hung(service()), now_s=NOW_S).status
    for later in (service(status=first), service(None, status=first), hung(service(status=first))):
        made = plan(later, now_s=NOW_S + 60)
        assert first
        assert diagnosed(made) == first["diagnosis"]
        assert events(made) == []
    made = plan(service(replace(ASKED, since_s=1030.0), status=first), now_s=NOW_S + 60)
    assert causes(made) == ["NothingFound"]
    assert len(events(made)) == 1


def test_an_alert_that_comes_before_anything_shows_is_answered_again_when_something_does() -> None:
    early = plan(service(), now_s=NOW_S)
    assert causes(early) == ["NothingFound"]
    ((message, warning),) = events(early)
    assert "2 of 2 workers are ready" in message
    assert not warning
    quiet = plan(service(status=early.status), now_s=NOW_S + 5)
    assert events(quiet) == []
    assert diagnosed(quiet) == diagnosed(early)
    later = plan(hung(service(status=early.status)), now_s=NOW_S + 10)
    assert causes(later) == ["WorkerHung"]
    assert len(events(later)) == 1


def test_a_cause_that_both_stops_and_bounds_a_service_is_told_once() -> None:
    floor = Floor(3, 2000.0, "alert 'CheckoutBroken' fires, and reaction 'more' of AlertPolicy demo/watch asks for 3")
    wishes = Wishes(floors=(floor,), question=ASKED)
    bounded = service(tenant=tenant(quota={"replicas": 2}), status={"desiredReplicas": 2})
    made = plan(replace(bounded, spec=service_spec(scaling={"min": 2, "max": 4}), wishes=wishes), now_s=NOW_S)
    assert {one.type: one.reason for one in made.conditions}["ScalingLimited"] == "QuotaExceeded"
    assert causes(made).count("QuotaExceeded") == 1


def test_what_is_in_the_way_of_the_spec_what_bounds_and_what_drifts_are_causes_too() -> None:
    drift = Drift("b", Measure.LENGTH, 20.0, False, "LengthDrift", "Answers are half as long.")
    rollout = {"phase": "Analysing", "summary": "b gets 10 % of the sessions"}
    seen = service(status={"rollout": rollout}, drifts=(drift,))
    made = plan(replace(seen, spec=service_spec(replicas=2, sla="gold")), now_s=NOW_S)
    assert causes(made) == ["SLANotFound", "RolloutUnderWay", "LengthDrift"]
    ((message, _),) = events(made)
    assert message.endswith("And 2 more in status.diagnosis.")
