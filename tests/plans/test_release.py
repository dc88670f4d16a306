"""A new release of the operator alone moves no worker; an edit, a restart or the administrator's wish does."""

from __future__ import annotations

import dataclasses
from typing import Any

from controllers.plans.service import PlanSettings, ServicePlan, plan_service
from controllers.plans.snapshot import Revision, Snapshot
from controllers.plans.worker_pod import WorkerImages, WorkerTemplate, worker_template
from forecasting.policy import Memory
from tests.gen import EARLY, IMAGES, SETTINGS, model_view, service_spec, snapshot, with_workers, workers

LATE = "2026-02-01T00:00:00Z"
NEXT = dataclasses.replace(SETTINGS, images=WorkerImages("foretide/worker-cpu:next", None, "IfNotPresent"))
NOW_S = 1_800_000_000.0


def template(seen: Snapshot, images: WorkerImages = IMAGES) -> WorkerTemplate:
    assert seen.model
    return worker_template(seen, seen.model, images)


def served(**spec: Any) -> Snapshot:
    """Two ready workers, as this release made them, that this release has looked at."""
    seen = snapshot(spec=service_spec(replicas=2, **spec))
    made = template(seen)
    seen = dataclasses.replace(seen, status=seen.status.model_copy(update={"current_revision": made.revision}))
    return with_workers(seen, Revision(made.revision, 2, EARLY, asked=made.asked), workers=workers(made.revision, 2))


def planned(seen: Snapshot, settings: PlanSettings = NEXT) -> ServicePlan:
    return plan_service(seen, settings, Memory(), NOW_S)


def deployments(made: ServicePlan) -> list[str]:
    return [child["metadata"]["name"] for child in made.children if child["kind"] == "Deployment"]


def outdated(made: ServicePlan) -> str | None:
    return next((one.message for one in made.conditions if one.type == "WorkersOutdated"), None)


def test_another_image_of_the_next_release_touches_no_worker_and_is_told() -> None:
    seen = served()
    made = planned(seen)
    assert (made.moves, made.remove, deployments(made)) == ((), (), [])
    assert made.status
    assert made.status["currentRevision"] == template(seen).revision
    message = outdated(made)
    assert message
    assert template(seen).revision in message
    assert template(seen, NEXT.images).revision in message
    assert "kubectl foretide restart" in message


def test_the_same_release_has_nothing_to_tell() -> None:
    assert outdated(planned(served(), SETTINGS)) is None


def test_workers_of_an_earlier_release_scale_as_any() -> None:
    seen = served()
    more = dataclasses.replace(seen, spec=service_spec(replicas=3))
    (move,) = planned(more).moves
    assert (move.revision, move.before, move.after) == (template(seen).revision, 2, 3)


def test_an_edit_is_rolled_out_as_the_new_release_makes_it() -> None:
    edited = dataclasses.replace(served(), spec=service_spec(replicas=2, engine={"maxNumSeqs": 8}))
    made = planned(edited)
    assert deployments(made) == [f"chat-{template(edited, NEXT.images).revision}"]
    assert outdated(made) is None


def test_a_restart_is_rolled_out_as_the_new_release_makes_it() -> None:
    asked = dataclasses.replace(
        served(), spec=service_spec(replicas=2, rollout={"restartedAt": "2026-03-01T00:00:00Z"})
    )
    made = planned(asked)
    assert deployments(made) == [f"chat-{template(asked, NEXT.images).revision}"]


def test_another_model_file_is_rolled_out() -> None:
    changed = dataclasses.replace(served(), model=model_view(digest="sha256:" + "2" * 64))
    assert deployments(planned(changed)) == [f"chat-{template(changed, NEXT.images).revision}"]


def test_an_administrator_may_have_releases_rolled_out() -> None:
    seen = served()
    made = planned(seen, dataclasses.replace(NEXT, roll_releases=True))
    assert deployments(made) == [f"chat-{template(seen, NEXT.images).revision}"]


def test_going_back_to_the_earlier_release_moves_nothing_either() -> None:
    old = served()
    first, new = template(old), template(old, NEXT.images)
    # Rolled out by the next release; the first revision is kept at 0 workers.
    seen = with_workers(
        dataclasses.replace(old, status=old.status.model_copy(update={"current_revision": new.revision})),
        Revision(first.revision, 0, EARLY, asked=first.asked),
        Revision(new.revision, 2, LATE, asked=new.asked),
        workers=workers(new.revision, 2),
    )
    made = planned(seen, SETTINGS)
    assert made.moves == ()
    assert made.status
    assert made.status["currentRevision"] == new.revision
    assert [child["spec"]["replicas"] for child in made.children if child["kind"] == "Deployment"] == [0]


def test_workers_made_before_releases_were_told_apart_are_replaced_once() -> None:
    seen = served()
    (one,) = seen.revisions
    unknown = dataclasses.replace(seen, revisions=(dataclasses.replace(one, asked=None),))
    assert deployments(planned(unknown)) == [f"chat-{template(seen, NEXT.images).revision}"]


def test_a_deployment_that_somebody_deletes_is_made_anew() -> None:
    seen = served()
    (one,) = seen.revisions
    going = dataclasses.replace(seen, revisions=(dataclasses.replace(one, leaving=True),))
    assert deployments(planned(going)) == [f"chat-{template(seen, NEXT.images).revision}"]


def test_a_default_that_is_written_out_asks_for_nothing_else() -> None:
    left_out, written = snapshot(), snapshot(spec=service_spec(rollout={"drainTimeout": "2m"}, nodeSelector={}))
    assert template(left_out).asked == template(written).asked
