"""GPU faults: the table, and a node's way through quarantine and probation."""

from __future__ import annotations

import pytest

from controllers.plans.mig.demand import Want
from controllers.plans.mig.faults import (
    LONGEST_S,
    XIDS,
    Action,
    Fault,
    Quarantine,
    action_of,
    dump_faults,
    length_s,
    read_faults,
    read_quarantine,
)
from controllers.plans.mig.pool_status import pool_status
from crds.contract import ANNOTATION_FAULTS
from tests.plans.mig.pool_world import World, node

GPU = "GPU-5a1c"
ALL = Want("demo/s", "1g.10gb", 14, 0)
"""As many as both nodes have, so that nothing is cut for another reason."""


def world(*wants: Want) -> World:
    it = World({"n0": node("n0", m1g_10gb=7), "n1": node("n1", m1g_10gb=7)}, list(wants or (ALL,)))
    it.put("w", "n0", m1g_10gb=1)
    return it


def fault(it: World, xid: int, name: str = "n0") -> None:
    known = read_faults(it.nodes[name]["metadata"]["annotations"].get(ANNOTATION_FAULTS))
    it.nodes[name]["metadata"]["annotations"][ANNOTATION_FAULTS] = dump_faults([*known, Fault(it.now_s, xid, GPU)])


def state(it: World, name: str = "n0") -> str:
    fields, _ = pool_status(it.snapshot(), it.plan(), it.now_s)
    return str(next(one["state"] for one in fields["nodes"] if one["name"] == name))


@pytest.mark.parametrize(
    ("action", "xids"),
    [
        (Action.RESET_GPU, [46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158]),
        (Action.REBOOT_NODE, [79]),
        (Action.RESTART_VM, [151]),
        (Action.WORKFLOW, [48, 45, 74, 144, 145, 146, 147, 148, 149, 150, 154]),
        (Action.RESTART_WORKER, [13, 31, 32, 43, 68, 69, 94]),
        (Action.IGNORE, [63, 92, 93, 121, 137]),
    ],
)
def test_each_xid_calls_for_what_the_catalogue_says(action: Action, xids: list[int]) -> None:
    assert {action_of(xid) for xid in xids} == {action}
    assert sorted(xid for xid, known in XIDS.items() if known is action) == sorted(xids)


def test_an_unknown_xid_is_for_a_person_and_drains_nothing() -> None:
    assert action_of(999) is Action.WORKFLOW
    assert not Action.WORKFLOW.drains


@pytest.mark.parametrize("xid", [79, 109, 119, 151])
def test_a_fault_that_calls_for_a_reset_takes_the_node_out_with_all_slices(xid: int) -> None:
    it = world()
    fault(it, xid)
    it.step()
    assert not it.usable("n0")
    assert it.nodes["n0"]["metadata"]["labels"]["foretide.dev/evacuate"] == "true"
    it.step()
    assert it.pods == {}, "the worker moved"
    assert state(it) == "Quarantined"
    _, made = pool_status(it.snapshot(), it.plan(), it.now_s)
    ready = next(one for one in made if one["type"] == "Ready")
    assert ready["reason"] == "GpuFault"
    assert f"GPU {GPU} had XID {xid}: {action_of(xid).value}" in ready["message"]


@pytest.mark.parametrize("xid", [13, 31, 43, 63, 92, 48])
def test_others_leave_the_node_in_use(xid: int) -> None:
    it = world()
    fault(it, xid)
    it.run(3)
    assert it.usable("n0")
    assert "w" in it.pods


def test_a_worker_without_another_place_is_drained_after_the_time_to_move() -> None:
    it = world()
    it.moved = False
    fault(it, 109)
    it.run(3)
    assert "w" in it.pods
    it.now_s += 301
    it.step()
    assert "w" not in it.pods


def test_a_node_in_quarantine_is_given_back_when_its_pool_goes() -> None:
    it = world()
    fault(it, 109)
    it.step()
    assert not it.usable("n0")
    it.step(deleting=True)
    assert it.usable("n0")
    assert "foretide.dev/evacuate" not in it.nodes["n0"]["metadata"]["labels"]
    assert it.plan(deleting=True).moves == ()


def test_probation_ends_with_the_pool_and_leaves_alone_what_others_wrote_since() -> None:
    it = world()
    fault(it, 109)
    it.run(3)
    it.now_s += 1800
    it.run(2)
    assert state(it) == "Ready"
    it.nodes["n0"]["spec"]["unschedulable"] = True
    it.nodes["n0"]["metadata"]["labels"]["foretide.dev/evacuate"] = "false"
    it.step(deleting=True)
    assert not it.usable("n0")
    assert it.nodes["n0"]["metadata"]["labels"]["foretide.dev/evacuate"] == "false"
    assert it.plan(deleting=True).moves == ()


def test_the_node_comes_back_on_probation_and_a_second_fault_takes_twice_as_long() -> None:
    it = world()
    fault(it, 109)
    it.run(3)
    it.now_s += 1800
    it.run(2)
    assert it.usable("n0")
    assert state(it) == "Ready"
    it.now_s += 60
    fault(it, 95)
    it.run(2)
    assert not it.usable("n0")
    it.now_s += 1900
    it.run(2)
    assert not it.usable("n0"), "twice 1800 s this time"
    it.now_s += 1800
    it.run(2)
    assert it.usable("n0")


def test_one_incident_that_tells_of_itself_again_and_again_is_one_fault_and_its_workers_leave_on_time() -> None:
    it = world()
    it.moved = False
    fault(it, 119)
    for _ in range(90):
        it.step(4.0)
        fault(it, 119)
    assert "w" not in it.pods, "drained after the time to move"
    quarantine = read_quarantine(it.views()[0].quarantine)
    assert quarantine
    assert quarantine.strikes == 1
    assert 1700 < quarantine.until_s - it.now_s <= 1800
    it.run(5, 700.0)
    assert it.usable("n0")


def test_a_node_whose_clock_is_ahead_is_written_once_a_minute_at_most_and_emptied_all_the_same() -> None:
    it = world()
    it.moved = False
    patches = 0
    for look in range(100):
        known = read_faults(it.nodes["n0"]["metadata"]["annotations"].get(ANNOTATION_FAULTS))
        told = dump_faults([*known, Fault(it.now_s + 600.0, 119, GPU)]) if look < 3 else dump_faults(known)
        it.nodes["n0"]["metadata"]["annotations"][ANNOTATION_FAULTS] = told
        patches += sum(move.patch is not None for move in it.step(10.0).moves)
    assert patches <= 2
    assert "w" not in it.pods


def test_a_number_of_faults_that_nobody_can_have_counted_ends_in_the_longest_quarantine() -> None:
    assert [length_s(strikes) for strikes in (-1, 1, 2, 7, 1025)] == [1800.0, 1800.0, 3600.0, LONGEST_S, LONGEST_S]


def test_after_probation_it_is_as_if_nothing_had_been() -> None:
    it = world()
    fault(it, 109)
    it.run(2)
    it.now_s += 1800
    it.run(2)
    it.now_s += 86400
    it.run(2)
    assert it.nodes["n0"]["metadata"]["annotations"].get("foretide.dev/quarantine") is None
    assert it.usable("n0")


def test_a_node_in_quarantine_gives_nothing_and_is_not_cut() -> None:
    it = world(Want("demo/s", "1g.10gb", 9, 0))
    fault(it, 109)
    it.run(3)
    fields, made = pool_status(it.snapshot(), it.plan(), it.now_s)
    assert fields["served"] == "7/9"
    assert next(one for one in made if one["type"] == "DemandMet")["status"] == "False"
    assert sum(it.asked.values()) == 0


def test_a_node_that_somebody_had_cordoned_stays_so_after_quarantine() -> None:
    it = world()
    it.nodes["n0"]["spec"]["unschedulable"] = True
    fault(it, 109)
    it.run(2)
    it.now_s += 1800
    it.run(2)
    assert not it.usable("n0")


def test_faults_and_quarantines_survive_the_node_and_nonsense_is_none() -> None:
    faults = (Fault(1.0, 13, GPU), Fault(2.5, 79, GPU))
    assert read_faults(dump_faults(faults)) == faults
    assert read_faults("nonsense") == read_faults(None) == read_faults('[["a"]]') == ()
    one = Quarantine(1.0, 2.0, 79, GPU, 2, True)
    assert read_quarantine(one.dump()) == one
    assert read_quarantine("{}") is read_quarantine("x") is read_quarantine(None) is None
    assert read_quarantine(one.dump().replace(f'"until_s":{one.until_s}', '"until_s":Infinity')) is None
    for text in ("[" * 100_000, '[[Infinity,79,"GPU-1"]]', '[[1.0,1e999,"GPU-1"]]'):
        assert read_faults(text) == ()
