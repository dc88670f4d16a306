"""The whole plan of one InferenceService: what is written for each state, and the sentences that people read."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import pytest

from controllers.plans.alerting.wishes import Hold, Wishes
from controllers.plans.healing.values import NodeFacts
from controllers.plans.service import ServicePlan
from controllers.plans.snapshot import Load, Revision, Snapshot, Worker
from crds.contract import FINALIZER_SERVICE
from tests.gen import (
    EARLY,
    SETTINGS,
    answered,
    claim,
    model_view,
    plan,
    service_spec,
    snapshot,
    target_of,
    tenant,
    with_workers,
    workers,
)


def condition(made: ServicePlan, type_: str) -> tuple[str, str, str] | None:
    found = [one for one in made.conditions if one.type == type_]
    return (found[0].status.value, found[0].reason, found[0].message) if found else None


def deployment(made: ServicePlan) -> dict[str, Any] | None:
    return next((child for child in made.children if child["kind"] == "Deployment"), None)


def running(number: int, **fields: Any) -> Snapshot:
    """`number` ready workers of the wanted revision."""
    seen = snapshot(**{"spec": service_spec(replicas=number)} | fields)
    target = target_of(seen)
    return with_workers(seen, Revision(target, number, EARLY), workers=workers(target, number))


# --- the ordinary life -------------------------------------------------------------------------------------------


def test_a_new_service_gets_all_children_in_the_order_in_which_pods_need_them() -> None:
    made = plan(snapshot(spec=service_spec(replicas=2)))
    assert [child["kind"] for child in made.children] == [
        "ServiceAccount",
        "NetworkPolicy",
        "Service",
        "PodDisruptionBudget",
        "Deployment",
    ]
    wanted = deployment(made)
    assert wanted
    assert wanted["spec"]["replicas"] == 2
    assert wanted["metadata"]["name"] == f"chat-{target_of(snapshot())}"
    assert all(child["metadata"]["ownerReferences"][0]["uid"] == "uid-chat" for child in made.children)


def test_images_are_pulled_with_the_secrets_of_the_workers_account_which_make_no_other_revision() -> None:
    seen = snapshot(spec=service_spec(replicas=2))
    around = dataclasses.replace(SETTINGS.around, pull_secrets=("registry", "mirror"))
    before = plan(seen)
    after = plan(seen, settings=dataclasses.replace(SETTINGS, around=around))
    assert "imagePullSecrets" not in before.children[0]
    assert after.children[0]["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]
    assert after.children[1:] == before.children[1:]


def test_starting_is_reconciling_and_not_ready() -> None:
    made = plan(snapshot(spec=service_spec(replicas=2)))
    assert condition(made, "Ready") == ("False", "Starting", "0 of 2 workers are ready.")
    assert condition(made, "Reconciling") == ("True", "Starting", "0 of 2 workers are ready.")
    assert condition(made, "Servable") == ("False", "NoReadyWorkers", "No worker is ready to answer.")
    assert condition(made, "Stalled") is None


def test_ready_and_servable_when_all_workers_are_ready_and_a_probe_came_back() -> None:
    seen = running(2)
    made = plan(dataclasses.replace(seen, probe=answered(seen)))
    target = target_of(seen)
    assert condition(made, "Ready") == ("True", "WorkersReady", f"2 of 2 workers of revision {target} are ready.")
    assert condition(made, "Servable") == (
        "True",
        "ProbeAnswered",
        "A probe through every gateway replica was answered.",
    )
    assert [one.type for one in made.conditions] == ["Ready", "Servable"]
    assert made.status == {
        "observedGeneration": 1,
        "url": "http://foretide-gateway.foretide-system:8080/v1",
        "modelName": "demo/chat",
        "tenant": "acme",
        "currentRevision": target,
        "revisions": [{"name": target, "replicas": 2, "readyReplicas": 2}],
        "desiredReplicas": 2,
        "replicas": 2,
        "readyReplicas": 2,
        "replicaStatus": "2/2",
        "selector": "foretide.dev/inference-service=chat",
    }


def test_workers_that_share_gpus_without_mig_are_said_to_be_weakly_isolated() -> None:
    shared = {"shared": {"strategy": "timeSlicing", "gigabytes": 20}}
    seen = snapshot(spec=service_spec(accelerator=shared))
    found = {one.type: one for one in plan(seen).conditions}
    assert found["WeakIsolation"].reason == "TimeSlicing"
    assert "For isolation use accelerator.mig" in found["WeakIsolation"].message
    assert "WeakIsolation" not in {one.type for one in plan(snapshot()).conditions}


def test_scaled_to_zero_is_ready_and_not_servable() -> None:
    made = plan(running(0))
    assert condition(made, "Ready") == ("True", "ScaledToZero", "0 workers are wanted.")
    assert condition(made, "Servable") == ("False", "NoReadyWorkers", "No worker is ready to answer.")


def test_a_rollout_says_how_far_it_is_and_moves_only_numbers_of_the_old_deployment() -> None:
    seen = snapshot(spec=service_spec(replicas=3))
    target = target_of(seen)
    seen = with_workers(
        seen,
        Revision("old", 3, EARLY),
        Revision(target, 1, "2026-01-02T00:00:00Z"),
        workers=[*workers("old", 3), *workers(target, 1)],
    )
    made = plan(seen)
    assert [str(move) for move in made.moves] == ["old 3→2"]
    assert made.lowered == ("old",)
    assert condition(made, "Ready") == (
        "False",
        "RollingOut",
        f"1 of 3 workers have revision {target}; old 3→2: 3 ready ≥ 3 minimum, 3 of at most 4.",
    )


def test_planning_again_after_applying_changes_no_number() -> None:
    seen = running(2)
    made = plan(seen)
    assert not made.moves
    assert not made.remove
    wanted = deployment(made)
    assert wanted
    assert wanted["spec"]["replicas"] == 2
    assert plan(seen).children == made.children


# --- what is missing ---------------------------------------------------------------------------------------------


def test_a_missing_model_says_which_and_asks_whether_another_was_meant() -> None:
    spec = service_spec(model="smollm2-135")
    made = plan(snapshot(spec=spec, model=None, model_names=("smollm2-135m", "other")))
    sentence = "Model 'smollm2-135' is not in namespace 'demo'; did you mean 'smollm2-135m'?"
    assert condition(made, "Ready") == ("False", "ModelNotFound", sentence)
    assert condition(made, "Stalled") == ("True", "ModelNotFound", sentence)
    assert deployment(made) is None


def test_a_model_that_is_on_its_way_is_no_stall() -> None:
    made = plan(snapshot(model=model_view(ready=False, reason="Downloading")))
    assert condition(made, "Reconciling") == (
        "True",
        "ModelNotReady",
        "Model 'm' is not ready yet (Downloading); `kubectl get model m` shows how far it is.",
    )
    assert condition(made, "Stalled") is None


def test_a_model_that_failed_hands_its_own_sentence_on() -> None:
    made = plan(snapshot(model=model_view(ready=False, reason="Failed", stalled="node-1: 404 from the source.")))
    assert condition(made, "Stalled") == (
        "True",
        "ModelNotReady",
        "Model 'm' is not ready: node-1: 404 from the source.",
    )


def test_a_namespace_without_a_tenant_starts_nothing() -> None:
    made = plan(snapshot(tenant=None))
    assert condition(made, "Stalled") == (
        "True",
        "TenantNotFound",
        "No Tenant owns namespace 'demo'; add it to spec.namespaces of a Tenant.",
    )
    assert deployment(made) is None


def test_a_missing_sla_is_said_and_workers_serve_without_it() -> None:
    made = plan(snapshot(spec=service_spec(sla="interactiv"), sla_names=("interactive",)))
    assert condition(made, "Stalled") == (
        "True",
        "SLANotFound",
        "SLA 'interactiv' is not in namespace 'demo'; did you mean 'interactive'?",
    )
    assert deployment(made)


def test_several_missing_things_are_all_named() -> None:
    made = plan(snapshot(tenant=None, model=None, model_names=()))
    ready = condition(made, "Ready")
    assert ready
    assert ready[1] == "TenantNotFound"
    assert "Model 'm' is not in namespace 'demo'. Apply it, or name another." in ready[2]


def test_missing_things_do_not_touch_workers_that_run() -> None:
    seen = dataclasses.replace(running(3), model=None, tenant=None)
    made = plan(seen)
    assert deployment(made) is None
    assert not made.moves
    assert not made.remove
    assert made.status
    assert made.status["replicaStatus"] == "3/3"


def test_fewer_workers_are_honoured_while_something_is_missing() -> None:
    seen = dataclasses.replace(running(3), model=None, spec=service_spec(replicas=1))
    assert [(move.before, move.after) for move in plan(seen).moves] == [(3, 1)]


def test_an_accelerator_without_an_image_keeps_the_last_revision() -> None:
    seen = running(2)
    seen = dataclasses.replace(seen, spec=service_spec(replicas=2, accelerator={"gpu": {}}))
    made = plan(seen)
    assert condition(made, "Stalled") is not None
    assert made.status
    assert made.status["currentRevision"] == seen.revisions[0].name
    assert not made.moves


def test_a_rollouts_surge_does_not_stay_beyond_the_quota() -> None:
    seen = snapshot(spec=service_spec(replicas=6), tenant=tenant(quota={"replicas": 3}), status={"desiredReplicas": 3})
    target = target_of(seen)
    seen = with_workers(
        seen,
        Revision("old", 3, EARLY),
        Revision(target, 1, "2026-01-02T00:00:00Z"),
        workers=[*workers("old", 3), *workers(target, 1)],
    )
    made = plan(seen)
    assert made.status
    assert made.status["desiredReplicas"] == 3
    assert [str(move) for move in made.moves] == ["old 3→2"]


def test_the_quota_of_the_tenant_limits_the_deployment() -> None:
    seen = snapshot(
        spec=service_spec(replicas=4),
        tenant=tenant(quota={"replicas": 8}),
        other_claims=(claim("other", wanted=6, held=6),),
    )
    made = plan(seen)
    wanted = deployment(made)
    assert wanted
    assert wanted["spec"]["replicas"] == 2
    assert made.over_quota
    stalled = condition(made, "Stalled")
    assert stalled
    assert stalled[1] == "QuotaExceeded"
    assert "asks 10 replicas; its quota is 8, which leaves 'chat' 2 of 4 workers" in stalled[2]


# --- what workers say --------------------------------------------------------------------------------------------


def with_bad_worker(**fields: Any) -> Snapshot:
    seen = snapshot()
    target = target_of(seen)
    worker = Worker(f"chat-{target}-1", target, **fields)
    return with_workers(seen, Revision(target, 1, EARLY), workers=[worker])


@pytest.mark.parametrize(
    ("fields", "reason", "part"),
    [
        (
            {"waiting_reason": "ImagePullBackOff", "waiting_message": 'Back-off pulling image "x"'},
            "ImagePullFailed",
            'The worker image cannot be pulled for 1 worker: Back-off pulling image "x".',
        ),
        (
            {"unschedulable": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."},
            "Unschedulable",
            "No node takes 1 worker: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu. Add nodes, free some",
        ),
        (
            {"waiting_reason": "CreateContainerConfigError", "waiting_message": "no such key"},
            "WorkerNotStarted",
            "1 worker cannot be started: no such key.",
        ),
        (
            {
                "waiting_reason": "CrashLoopBackOff",
                "restarts": 3,
                "ended_code": 1,
                "ended_message": 'loading\n{"level": "error", "message": "m.gguf is cut off: 5 of 98 MB"}\n',
            },
            "WorkerCrashing",
            "1 worker ended again and again: m.gguf is cut off: 5 of 98 MB.",
        ),
        (
            {"waiting_reason": "CrashLoopBackOff", "restarts": 3, "ended_code": 137},
            "WorkerCrashing",
            "killed (137), mostly for memory: raise accelerator.*.memory",
        ),
    ],
)
def test_a_worker_that_cannot_start_is_explained(fields: dict[str, Any], reason: str, part: str) -> None:
    stalled = condition(plan(with_bad_worker(**fields)), "Stalled")
    assert stalled
    assert stalled[1] == reason
    assert part in stalled[2]


@pytest.mark.parametrize(("age_s", "is_told"), [(240.0, False), (360.0, True)])
def test_a_worker_that_a_node_makes_for_long_is_explained(age_s: float, is_told: bool) -> None:
    seen = with_bad_worker(waiting_reason="ContainerCreating", node="node-7", created=EARLY)
    told = condition(plan(seen, now_s=datetime.fromisoformat(EARLY).timestamp() + age_s), "Reconciling")
    assert told
    assert (told[1] == "ContainerCreating") is is_told
    assert ("Node node-7 has not made 1 worker within 5 minutes" in told[2]) is is_told


def test_a_worker_behind_a_scheduling_gate_is_not_said_to_lack_a_node() -> None:
    made = plan(with_bad_worker(waiting_reason="SchedulingGated"))
    assert condition(made, "Stalled") is None
    told = condition(made, "Reconciling")
    assert told
    assert told[1:] == ("SchedulingGated", "Scheduling gates hold back 1 worker, until who set them lifts them.")


def test_one_crash_is_not_yet_a_stall() -> None:
    made = plan(with_bad_worker(ended_code=1, ended_message="lost the GPU", restarts=1))
    assert condition(made, "Stalled") is None
    assert condition(made, "Reconciling") == ("True", "WorkerCrashing", "1 worker ended: lost the GPU.")


def test_a_refusal_of_the_api_server_is_shown() -> None:
    seen = snapshot()
    failure = 'pods "chat-x" is forbidden: exceeded quota: acme, requested: cpu=1, used: cpu=8, limited: cpu=8'
    seen = with_workers(seen, Revision(target_of(seen), 1, EARLY, failure=failure), workers=[])
    stalled = condition(plan(seen), "Stalled")
    assert stalled
    assert stalled[1] == "QuotaExceeded"
    assert "limited: cpu=8" in stalled[2]


def test_a_broken_new_revision_says_so_while_the_old_one_serves_on() -> None:
    seen = snapshot(spec=service_spec(replicas=2))
    target = target_of(seen)
    crashing = Worker(
        f"chat-{target}-9", target, waiting_reason="CrashLoopBackOff", restarts=5, ended_code=1, ended_message="bad"
    )
    seen = with_workers(
        seen, Revision("old", 2, EARLY), Revision(target, 1, EARLY), workers=[*workers("old", 2), crashing]
    )
    made = plan(seen)
    assert not made.moves
    ready = condition(made, "Ready")
    assert ready
    assert ready[2] == "1 worker ended again and again: bad. 2 workers of earlier revisions serve on."


# --- probes and Events ----------------------------------------------------------------------------------------------


def status_of(made: ServicePlan) -> dict[str, Any]:
    """The status as it would be stored."""
    assert made.status is not None
    stamps = {"lastTransitionTime": EARLY, "observedGeneration": 1}
    return made.status | {"conditions": [one.dump() | stamps for one in made.conditions]}


def test_a_probe_is_sent_as_soon_as_a_worker_is_ready() -> None:
    made = plan(running(1))
    assert made.probe_now
    assert made.look_again_s == 1.0
    servable = condition(made, "Servable")
    assert servable
    assert servable[:2] == ("False", "ProbePending")


def test_a_probe_is_repeated_when_workers_or_gateways_change_and_every_30_s() -> None:
    seen = running(1)
    fine = dataclasses.replace(seen, probe=answered(seen, age_s=29))
    assert not plan(fine).probe_now
    assert plan(fine).look_again_s == 30.0
    assert plan(dataclasses.replace(seen, probe=answered(seen, age_s=30))).probe_now
    assert plan(dataclasses.replace(fine, gateways=frozenset({"10.0.0.9"}))).probe_now
    more = with_workers(fine, *fine.revisions, workers=workers(target_of(seen), 2))
    assert plan(more).probe_now
    assert condition(plan(more), "Servable") == condition(plan(fine), "Servable")


def test_without_a_gateway_nothing_is_servable() -> None:
    servable = condition(plan(dataclasses.replace(running(1), gateways=frozenset())), "Servable")
    assert servable
    assert servable[1] == "NoGateway"


def test_one_lost_probe_changes_nothing_and_the_second_says_why() -> None:
    seen = running(1)
    seen = dataclasses.replace(seen, probe=answered(seen))
    before = dataclasses.replace(seen, status=seen.status.model_validate(status_of(plan(seen))))
    lost = answered(seen, ok=False, reason="ProbeFailed", message="Gateway 10.0.0.1: timed out.", failures=1)
    assert condition(plan(dataclasses.replace(before, probe=lost)), "Servable") == condition(plan(seen), "Servable")
    again = dataclasses.replace(lost, failures=2)
    made = plan(dataclasses.replace(before, probe=again))
    assert condition(made, "Servable") == ("False", "ProbeFailed", "Gateway 10.0.0.1: timed out.")
    assert [(note.reason, note.warning) for note in made.notes] == [("NotServable", True)]


def test_a_restarted_operator_writes_the_same_status_before_its_first_probe() -> None:
    seen = running(2)
    stored = status_of(plan(dataclasses.replace(seen, probe=answered(seen))))
    restarted = dataclasses.replace(seen, status=seen.status.model_validate(stored), probe=None)
    assert status_of(plan(restarted)) == stored
    assert plan(restarted).notes == ()


def test_becoming_ready_and_servable_are_events_and_staying_so_is_not() -> None:
    seen = running(1)
    starting = dataclasses.replace(seen, status=seen.status.model_validate(status_of(plan(snapshot()))))
    made = plan(dataclasses.replace(starting, probe=answered(seen)))
    assert [note.reason for note in made.notes] == ["Ready", "Servable"]


# --- scaling -----------------------------------------------------------------------------------------------------


def test_load_moves_the_deployment_and_leaves_an_event_with_the_arithmetic() -> None:
    seen = running(1, status={"desiredReplicas": 1})
    spec = service_spec(scaling={"max": 5, "targetConcurrency": 2})
    seen = dataclasses.replace(seen, spec=spec, loads={next(iter(seen.ready_workers)): Load(4, 1.0)})
    made = plan(seen)
    wanted = deployment(made)
    assert wanted
    assert wanted["spec"]["replicas"] == 2
    assert "1 → 2 replicas: 4 running + 0 waiting ÷ 2 each" in [note.message for note in made.moved]


def test_lowering_the_number_lowers_the_deployment_and_asks_for_deletion_costs() -> None:
    seen = dataclasses.replace(running(3), spec=service_spec(replicas=1))
    made = plan(seen)
    wanted = deployment(made)
    assert wanted
    assert wanted["spec"]["replicas"] == 1
    assert made.lowered == (target_of(seen),)
    assert made.moves == ()


# --- the end -----------------------------------------------------------------------------------------------------


def test_deletion_lets_workers_drain_before_anything_else_goes() -> None:
    made = plan(dataclasses.replace(running(2), deleting=True))
    assert made.children == ()
    assert made.remove == (target_of(snapshot()),)
    assert not made.release
    assert condition(made, "Ready") == ("False", "Deleting", "Deleting: 2 workers drain for up to 2m.")
    servable = condition(made, "Servable")
    assert servable
    assert servable[1] == "Deleting"


@pytest.mark.parametrize("is_ready", [True, False])
def test_deletion_does_not_wait_for_a_node_that_cannot_say_that_its_worker_went(is_ready: bool) -> None:
    leaving = dataclasses.replace(workers(target_of(snapshot()), 1)[0], leaving=True, node="node-7")
    seen = snapshot(deleting=True, finalizers=(FINALIZER_SERVICE,), nodes={"node-7": NodeFacts("node-7", is_ready)})
    assert plan(with_workers(seen, workers=[leaving])).release is not is_ready


def test_deletion_waits_for_workers_whose_deployment_is_gone() -> None:
    seen = with_workers(snapshot(deleting=True), workers=workers("x", 0, leaving=1))
    made = plan(seen)
    assert made.remove == ()
    assert not made.release


def test_the_finalizer_goes_when_nothing_is_left_and_the_status_is_not_written_any_more() -> None:
    made = plan(snapshot(deleting=True))
    assert made.release
    assert made.status is None


def test_a_deployment_that_someone_deletes_is_not_deleted_twice() -> None:
    seen = with_workers(snapshot(deleting=True), Revision("x", 1, EARLY, leaving=True), workers=workers("x", 1))
    assert plan(seen).remove == ()


# --- revisions that are compared ---------------------------------------------------------------------------------


def compared(**rollout: Any) -> Snapshot:
    """Two ready workers of revision `old`, which served, under a spec that is another revision's."""
    spec = service_spec(replicas=2, rollout={"strategy": "canary"} | rollout)
    status = {"rollout": {"phase": "Stable", "summary": "old serves", "stable": "old"}, "currentRevision": "old"}
    return with_workers(snapshot(spec=spec, status=status), Revision("old", 2, EARLY), workers=workers("old", 2))


def test_gateways_are_told_of_a_canary_before_its_first_worker_starts() -> None:
    made = plan(compared())
    wanted = deployment(made)
    assert wanted
    assert made.status
    assert wanted["spec"]["replicas"] == 0
    assert [one["weight"] for one in made.status["traffic"]] == [100, 0]


def test_a_canary_gets_one_worker_beside_all_old_ones_and_no_session_before_it_is_ready() -> None:
    seen = compared()
    first = plan(seen).status
    assert first
    told = seen.status.model_validate(seen.status.dump() | {"traffic": first["traffic"]})
    made = plan(dataclasses.replace(seen, status=told))
    wanted, status = deployment(made), made.status
    assert wanted
    assert status
    assert (wanted["spec"]["replicas"], made.moves) == (1, ())
    assert status["traffic"] == [{"revision": "old", "weight": 100}, {"revision": target_of(seen), "weight": 0}]
    assert status["rollout"]["phase"] == "Preparing"
    assert made.pair
    assert (made.pair.stable, made.pair.candidate) == ("old", target_of(seen))
    assert condition(made, "Reconciling") == (
        "True",
        "RollingOut",
        f"0 of 2 workers have revision {target_of(seen)}; {target_of(seen)} starts: 0 of 1 workers are ready.",
    )


def test_an_alerts_hold_ends_by_itself_and_the_service_looks_again_then() -> None:
    held = dataclasses.replace(compared(), wishes=Wishes(holds=(Hold(1000.5, "alert 'a' fires"),)))
    before, after = plan(held, now_s=1000.0), plan(held, now_s=1000.5)
    assert before.status
    assert after.status
    assert (before.status["rollout"]["reason"], before.look_again_s) == ("HeldByAlert", 0.5)
    assert after.status["rollout"]["reason"] != "HeldByAlert"


def test_an_earlier_revision_that_a_person_names_serves_and_the_spec_gets_no_deployment() -> None:
    made = plan(compared(rollbackTo="old"))
    assert deployment(made) is None
    assert made.status
    assert made.status["currentRevision"] == "old"
    assert condition(made, "Ready") == ("True", "WorkersReady", "2 of 2 workers of revision old are ready.")


def test_a_revision_to_go_back_to_that_does_not_exist_is_named_with_those_that_do() -> None:
    made = plan(compared(rollbackTo="older"))
    assert condition(made, "Stalled") == (
        "True",
        "RevisionNotFound",
        "spec.rollout.rollbackTo names revision 'older', which does not exist; kept are old. Name one, or remove it.",
    )


def test_a_service_that_rolls_as_before_says_nothing_of_traffic() -> None:
    made = plan(running(2))
    assert made.status
    assert not {"traffic", "rollout"} & made.status.keys()
