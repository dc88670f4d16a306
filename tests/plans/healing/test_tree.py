"""The diagnosis tree, read as sentences: what is seen, and what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from controllers.plans.healing.diagnose import diagnose
from controllers.plans.healing.symptoms import FRESH_S
from controllers.plans.healing.tree import TREE
from controllers.plans.healing.values import Diagnosis, Kind, NodeFacts, Objections
from controllers.plans.snapshot import Load, Worker
from controllers.plans.times import rfc3339
from crds.healing import ErrorClass, HealthStatus, Remedy
from tests.plans.healing.patients import (
    LONG_AGO,
    NOW_S,
    by_all,
    by_one,
    causes,
    crashing,
    lost,
    nodes,
    seen,
    slow,
    the_one,
    well,
)

A, B, C = well("a"), well("b", "node-2"), well("c", "node-2")
LATE = rfc3339(NOW_S)
GONE = NodeFacts("node-1", ready=False, said="Kubelet stopped posting node status.", since=LONG_AGO)


def test_workers_that_are_well_have_no_diagnosis() -> None:
    assert causes(seen(A, B, objections=by_all())) == []
    assert causes(seen(A, B)) == []
    assert causes(seen()) == []


@pytest.mark.parametrize(
    ("reason", "cause", "error_class"),
    [
        ("hung", "WorkerHung", ErrorClass.SYSTEM),
        ("silent", "WorkerUnreachable", ErrorClass.NETWORK),
        ("refused", "WorkerUnreachable", ErrorClass.NETWORK),
    ],
)
def test_a_worker_that_all_gateways_call_lost(reason: str, cause: str, error_class: ErrorClass) -> None:
    found = the_one(seen(A, B, C, objections=by_all(a=lost(reason))))
    assert (found.cause, found.error_class, found.workers) == (cause, error_class, ("a",))
    assert found.evidence == f"a: no sign of life ({reason})."
    assert Remedy.RESTART_WORKER in found.remedies
    assert found.hold is None


def test_a_worker_that_one_of_two_gateways_calls_lost_is_well_and_its_path_is_not() -> None:
    found = the_one(seen(A, B, objections=by_one(a=lost("silent"))))
    assert found.cause == "GatewayPath"
    assert "1 of 2 gateways (10.0.0.1)" in found.evidence
    assert found.remedies == (Remedy.SHIFT_TRAFFIC,)


def test_a_loss_that_is_younger_than_two_seconds_is_no_word_worth() -> None:
    assert causes(seen(A, B, objections=by_all(a=lost(for_s=1.0)))) == []


def test_what_gateways_said_a_while_ago_is_no_signal() -> None:
    heard = by_all(a=lost(), b=slow())
    assert causes(seen(A, B, C, objections=heard)) != []
    assert causes(seen(A, B, C, objections=replace(heard, age_s=FRESH_S + 0.1))) == []
    assert causes(seen(A, B, C, objections=Objections({}, 0.0))) == []


def test_what_gateways_held_against_a_worker_before_it_was_restarted_in_its_place_is_the_past() -> None:
    fresh = replace(A, ready_since=rfc3339(NOW_S - 5))
    assert causes(seen(fresh, B, objections=by_all(a=slow(for_s=20.0)))) == []
    assert causes(seen(fresh, B, objections=by_all(a=slow(for_s=4.0)))) == ["WorkerSlow"]


def test_a_worker_that_is_slow_whenever_it_is_tried() -> None:
    assert causes(seen(A, B, objections=by_all(a=slow(times=2)))) == []
    found = the_one(seen(A, B, objections=by_one(a=slow())))
    assert found.cause == "WorkerSlow"
    assert "10.8 × the 0.038 s elsewhere" in found.evidence


def test_a_worker_that_runs_and_is_not_ready_for_a_minute_is_as_good_as_hung() -> None:
    def unready(for_s: float) -> Worker:
        return replace(A, ready=False, ready_since=None, unready_since=rfc3339(NOW_S - for_s))

    assert causes(seen(unready(59), B)) == []
    assert causes(seen(unready(61), B)) == ["WorkerHung"]
    assert causes(seen(replace(unready(600), started=False), B)) == [], "it loads its model"


def test_a_worker_whose_node_is_gone_is_moved_whatever_else_is_said_of_it() -> None:
    found = the_one(seen(A, B, nodes=nodes(GONE, NodeFacts("node-2")), objections=by_all(a=lost("silent"))))
    assert (found.cause, found.nodes) == ("NodeNotReady", ("node-1",))
    assert found.evidence == "a: Node node-1 is not ready: Kubelet stopped posting node status."
    assert Remedy.MOVE_WORKER in found.remedies


def test_faults_and_pressure_of_the_node_explain_a_worker_that_is_not_well_and_only_such_a_one() -> None:
    faulty = NodeFacts("node-1", faults=((NOW_S - 60, "XID 63 of GPU GPU-3"),))
    pressed = NodeFacts("node-1", pressures=("MemoryPressure",))
    out = NodeFacts("node-1", quarantine="XID 79 of GPU GPU-3: reboot the node")
    for node, cause in ((faulty, "GpuFault"), (pressed, "NodeUnderPressure"), (out, "NodeInQuarantine")):
        view = seen(A, B, nodes=nodes(node, NodeFacts("node-2")))
        assert causes(view) == []
        assert causes(replace(view, objections=by_all(a=slow()))) == [cause]
    old = replace(faulty, faults=((NOW_S - 3600, "XID 63 of GPU GPU-3"),))
    assert causes(seen(A, B, nodes=nodes(old), objections=by_all(a=slow()))) == ["WorkerSlow"]


def test_a_new_revision_of_which_no_worker_was_ever_ready() -> None:
    view = seen(well("old-1", revision="old"), crashing("a"), health=HealthStatus(last_good="old"))
    found = the_one(view)
    assert (found.cause, found.error_class) == ("BadRevision", ErrorClass.MODEL)
    assert found.evidence == ("a: Revision new has no ready worker and never stood; Error (exit code 1), 4 restarts.")
    assert causes(replace(view, health=HealthStatus())) == ["Crashing"], "nothing is known to be better"
    assert causes(seen(crashing("a"), B, health=HealthStatus(last_good="old"))) == ["CrashingAlone"]


def test_an_old_revision_that_crashes_while_it_is_replaced_is_not_new() -> None:
    view = seen(crashing("old-1", revision="old"), B)
    made = tuple(replace(one, created=LATE if one.name == "new" else LONG_AGO) for one in view.revisions)
    assert causes(replace(view, revisions=made)) == ["Crashing"]


def test_what_a_worker_said_as_it_ended() -> None:
    unreadable = crashing(
        "a", ended_code=2, ended_message="/models/m.gguf: starts with b'\\0\\0\\0\\0', so it is no GGUF file."
    )
    assert causes(seen(unreadable, B)) == ["ModelUnreadable"]
    assert "so it is no GGUF file" in the_one(seen(unreadable, B)).evidence
    refused = crashing("a", ended_code=2, ended_message="--max-model-len must be at least 16.")
    assert causes(seen(refused, B)) == ["CrashingAlone"]
    killed = crashing("a", ended_code=137, ended_reason="OOMKilled")
    found = the_one(seen(killed, B))
    assert (found.cause, found.error_class) == ("OutOfMemory", ErrorClass.RESOURCE)
    assert found.remedies == (Remedy.SHIFT_TRAFFIC,), "a restart would end in the same way"
    full = crashing("a", ended_code=3, ended_message="the scratch folder /tmp holds 1152 MiB; it may hold 1024 MiB.")
    assert causes(seen(full, B)) == ["ScratchFull"]
    assert "holds 1152 MiB" in the_one(seen(full, B)).evidence


def test_a_worker_that_was_restarted_twice_in_a_long_life_does_not_crash_again_and_again() -> None:
    assert causes(seen(crashing("a", waiting_reason=None, ran_s=86400.0), B)) == []
    assert causes(seen(crashing("a", waiting_reason=None, ran_s=3.0), B)) == ["CrashingAlone"]
    assert causes(seen(crashing("a", restarts=1), B)) == []


def test_a_worker_that_waits_for_a_node_or_an_image_for_a_minute() -> None:
    young = rfc3339(NOW_S - 30)
    waiting = well("a", ready=False, started=False, unschedulable="0/3 nodes are available: 3 Insufficient cpu.")
    found = the_one(seen(waiting, B))
    assert (found.cause, found.error_class) == ("CannotStart", ErrorClass.RESOURCE)
    assert causes(seen(replace(waiting, created=young), B)) == []


def test_a_kv_cache_that_is_full_while_requests_wait() -> None:
    full = Load(requests=40, age_s=1.0, waiting=8, kv_use=0.97)
    assert causes(seen(A, B, loads={"a": full})) == ["CacheFull"]
    assert causes(seen(A, B, loads={"a": replace(full, waiting=0)})) == []
    assert causes(seen(A, B, loads={"a": replace(full, age_s=60.0)})) == []


def test_a_worker_that_leaves_is_nobody_s_patient() -> None:
    assert causes(seen(replace(A, leaving=True), B, C, objections=by_all(a=lost()))) == []


# --- one cause for many -----------------------------------------------------------------------------------------------


def test_half_of_the_fleet_at_once_is_one_cause_and_nobody_is_restarted() -> None:
    workers = [well(f"w{i}", f"node-{i}") for i in range(6)]
    found = the_one(seen(*workers, objections=by_all(w0=lost(), w2=lost("silent"), w4=slow())))
    assert found.cause == "FleetStorm"
    assert "3 of 6 workers at the same time" in found.evidence
    assert found.hold


def test_all_on_one_node_and_nobody_elsewhere_is_the_node() -> None:
    workers = [well(f"w{i}", "node-1" if i < 3 else "node-2") for i in range(6)]
    found = the_one(seen(*workers, objections=by_all(w0=lost(), w1=lost(), w2=lost())))
    assert (found.cause, found.nodes) == ("NodeFailing", ("node-1",))


def test_all_of_one_revision_and_nobody_else_is_the_revision() -> None:
    workers = [well(f"w{i}", f"node-{i}", "new" if i % 2 else "old") for i in range(6)]
    found = the_one(seen(*workers, objections=by_all(w1=lost(), w3=lost(), w5=lost())))
    assert found.cause == "RevisionFailing"
    assert "rollbackTo" in found.advice


def test_no_gateway_reaches_any_worker_is_the_network_even_for_a_single_one() -> None:
    assert the_one(seen(A, objections=by_all(a=lost("silent")))).cause == "FleetStorm"
    assert the_one(seen(A, objections=by_all(a=lost("silent")))).hold
    assert the_one(seen(A, objections=by_all(a=lost("hung")))).cause == "WorkerHung"


def test_every_node_gone_at_once_is_the_control_plane_s_view_and_nobody_is_moved() -> None:
    both = nodes(GONE, replace(GONE, name="node-2"))
    assert all("control plane" in (one.hold or "") for one in _diagnosed(both))
    assert all(one.hold is None for one in _diagnosed(nodes(GONE, NodeFacts("node-2"))))


def test_nobody_is_moved_while_no_node_could_take_them() -> None:
    lost = nodes(GONE)
    assert the_one(seen(A, nodes=lost)).hold is None
    assert the_one(seen(A, nodes=lost, other_nodes=False)).hold == "no node of the cluster is ready to take its workers"


def _diagnosed(facts: Mapping[str, NodeFacts]) -> list[Diagnosis]:
    return diagnose(seen(A, B, nodes=facts), NOW_S)


# --- the data itself --------------------------------------------------------------------------------------------------


def test_every_symptom_has_a_last_branch_and_every_branch_says_what_to_do() -> None:
    for kind in Kind:
        assert any(kind in one.symptoms for one in TREE), kind
    for branch in TREE:
        assert branch.remedies
        assert branch.advice.endswith(".")
        assert branch.effect.endswith(".")
        assert branch.patience_s >= 0
    assert len({one.cause for one in TREE}) == len(TREE)
    order = list(Remedy)
    for branch in TREE:
        ranks = [order.index(one) for one in branch.remedies]
        assert ranks == sorted(ranks), f"{branch.cause}: the mildest remedy comes first"


def test_the_page_for_people_has_a_line_for_every_branch() -> None:
    page = (Path(__file__).parents[3] / "docs" / "self-healing.md").read_text()
    for branch in TREE:
        remedies = " → ".join(one.value for one in branch.remedies)
        ours = [line for line in page.splitlines() if line.startswith(f"| `{branch.cause}` | {branch.error_class} |")]
        assert len(ours) == 1, branch.cause
        assert ours[0].endswith(f"| {remedies} | {branch.healer} | {branch.patience_s:g} s |")
