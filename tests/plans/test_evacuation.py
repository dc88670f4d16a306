"""Workers on a node that will be cut anew: a successor first, then they go."""

from __future__ import annotations

import dataclasses

from controllers.inference_service.caches import evacuating_name
from controllers.plans.deletion import deletion_costs
from controllers.plans.evacuation import successors
from controllers.plans.snapshot import Load, Revision, Worker
from tests.gen import plan, service_spec, snapshot, target_of


def on(node: str, *workers: Worker) -> tuple[Worker, ...]:
    return tuple(dataclasses.replace(worker, node=node) for worker in workers)


def ready(name: str, revision: str = "r", **fields: object) -> Worker:
    return dataclasses.replace(Worker(name, revision, ready=True), **fields)  # type: ignore[arg-type]


def test_as_many_successors_as_workers_that_must_move() -> None:
    two = on("a", ready("w1"), ready("w2"))
    other = on("b", ready("w3"))
    assert successors((*two, *other), {"a"}, 3) == 2
    assert successors((*two, *other), set(), 3) == 0
    assert successors((*two, *other), {"c"}, 3) == 0


def test_when_enough_are_ready_elsewhere_there_are_none() -> None:
    mine = (*on("a", ready("w1")), *on("b", ready("w2")))
    assert successors(mine, {"a"}, 1) == 0
    assert successors(mine, {"a"}, 2) == 1


def test_one_that_leaves_already_needs_no_successor() -> None:
    assert successors(on("a", ready("w1", leaving=True)), {"a"}, 1) == 0


def test_a_service_that_wants_no_workers_gets_no_successors() -> None:
    assert successors(on("a", ready("w1")), {"a"}, 0) == 0


def test_workers_on_such_a_node_are_the_cheapest_to_delete() -> None:
    mine = (*on("a", ready("w1")), *on("b", ready("w2")))
    loads = {"w1": Load(9, 0), "w2": Load(0, 0)}
    assert deletion_costs(mine, loads, {"a"}) == {"w1": -1}


def test_the_plan_of_a_service_grows_by_the_successor_and_shrinks_when_it_is_ready() -> None:
    seen = snapshot(spec=service_spec(replicas=1), evacuating=frozenset({"a"}))
    revision = target_of(seen)
    first = on("a", ready("w1", revision))
    moving = dataclasses.replace(seen, revisions=(Revision(revision, 1, "2026"),), workers=first)
    grown = next(child for child in plan(moving).children if child["kind"] == "Deployment")
    assert grown["spec"]["replicas"] == 2
    both = (*first, *on("b", ready("w2", revision)))
    moved = dataclasses.replace(seen, revisions=(Revision(revision, 2, "2026"),), workers=both)
    shrunk = plan(moved)
    assert next(one for one in shrunk.children if one["kind"] == "Deployment")["spec"]["replicas"] == 1
    assert shrunk.lowered == (revision,)


def test_nodes_that_are_marked_or_will_be_taken_away_are_evacuated_and_no_others() -> None:
    plain = {"metadata": {"name": "a", "labels": {"zone": "x"}}, "spec": {}}
    marked = {"metadata": {"name": "b", "labels": {"foretide.dev/evacuate": "true"}}}
    spot = {"metadata": {"name": "c"}, "spec": {"taints": [{"key": "aws-node-termination-handler/spot-itn"}]}}
    assert [evacuating_name(one) for one in (plain, marked, spot)] == [None, "b", "c"]
