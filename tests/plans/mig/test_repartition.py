"""Cutting nodes anew: what happens when all goes well, when anything goes wrong, and across restarts at any point."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.plans.mig.configs import layouts_of, mig_configs
from controllers.plans.mig.demand import Want
from controllers.plans.mig.layouts import layout
from controllers.plans.mig.pool_status import pool_status
from controllers.plans.mig.records import LABEL_STATE, NodeView, Record, Step, dump_gpus, read_gpus
from crds.gpu_pool import GPUPoolSpec, GPUPoolStatus
from tests.plans.mig.pool_world import Manager, World, node

SMALL = Want("demo/s", "1g.10gb", 7, 1)


def world(*wants: Want, nodes: int = 1, **fields: object) -> World:
    return World({f"n{i}": node(f"n{i}") for i in range(nodes)}, list(wants), **fields)  # type: ignore[arg-type]


def stuck() -> World:
    """Its node came neither to the wanted layout nor back."""
    it = world(SMALL, behaviour={"n0": [Manager.FAILS, Manager.FAILS, Manager.SILENT]})
    it.nodes["n0"] = node("n0", m7g_80gb=1)
    it.run(2)
    it.nodes["n0"]["status"]["allocatable"] = {"nvidia.com/mig-3g.40gb": "1"}  # The manager stopped half-way.
    it.run(40, 60.0)
    assert conditions(it)["Stalled"] == ("True", "NodeStuck")
    return it


def conditions(it: World) -> dict[str, tuple[str, str]]:
    _, made = pool_status(it.snapshot(), it.plan(), it.now_s)
    return {one["type"]: (one["status"], one["reason"]) for one in made}


def test_an_idle_whole_gpu_becomes_the_slices_that_are_wanted_and_is_used_again() -> None:
    it = world(SMALL)
    assert conditions(it)["Ready"] == ("False", "Repartitioning")
    it.run(10)
    assert it.gives("n0") == {"1g.10gb": 7}
    assert it.usable("n0")
    assert it.asked["n0"] == 1
    assert conditions(it) == {"Ready": ("True", "AsPlanned"), "DemandMet": ("True", "AllServed")}


def test_a_pool_that_is_as_planned_has_nothing_to_do() -> None:
    it = world(SMALL)
    it.run(10)
    assert it.plan().moves == ()


def test_workers_leave_before_the_manager_is_asked() -> None:
    it = world(Want("demo/s", "3g.40gb", 2, 0))
    it.nodes["n0"] = node("n0", m1g_10gb=7)
    it.put("w", "n0", m1g_10gb=1)
    it.moved = False
    plan = it.step()
    assert plan.starting == ("n0",)
    assert not it.usable("n0")
    assert it.nodes["n0"]["metadata"]["labels"]["foretide.dev/evacuate"] == "true"
    it.run(5)
    assert it.asked["n0"] == 0, "the manager's own check would fail, too"
    it.moved = True
    it.run(10)
    assert it.gives("n0") == {"3g.40gb": 2}
    assert "foretide.dev/evacuate" not in it.nodes["n0"]["metadata"]["labels"]


def test_workers_that_find_no_other_place_are_drained_one_of_a_service_at_a_time() -> None:
    it = world(Want("demo/s", "3g.40gb", 2, 0))
    it.nodes["n0"] = node("n0", m1g_10gb=7)
    for i in range(3):
        it.put(f"w{i}", "n0", m1g_10gb=1)
    it.put("other", "n0", service="t", m1g_10gb=1)
    it.moved = False
    it.step()
    it.now_s += 301
    drained = [pod.name for move in it.plan().moves for pod in move.drain]
    assert drained == ["other", "w0"]
    it.run(20)
    assert it.gives("n0") == {"3g.40gb": 2}


def test_a_pod_of_somebody_else_is_never_touched() -> None:
    it = world(Want("demo/s", "3g.40gb", 2, 0))
    it.nodes["n0"] = node("n0", m1g_10gb=7)
    it.put("foreign", "n0", service=None, m1g_10gb=1)
    it.run(10)
    assert it.asked["n0"] == 0
    assert it.usable("n0")
    fields, _ = pool_status(it.snapshot(), it.plan(), it.now_s)
    assert fields["nodes"][0]["state"] == "Frozen"
    assert "demo/foreign" in fields["nodes"][0]["message"]


def test_one_that_slips_in_while_workers_move_ends_the_attempt_and_the_node_is_used_as_it_was() -> None:
    it = world(SMALL)
    it.step()
    it.put("foreign", "n0", service=None, mgpu=1)
    it.run(40)
    assert it.usable("n0")
    assert it.asked["n0"] == 0
    assert [one.record.step for one in it.views() if one.record] == [Step.HELD]


@pytest.mark.parametrize("trouble", [Manager.FAILS, Manager.LIES, Manager.SILENT])
def test_one_failure_is_tried_again(trouble: Manager) -> None:
    it = world(SMALL, behaviour={"n0": [trouble]})
    it.run(25, 60.0)
    assert it.gives("n0") == {"1g.10gb": 7}
    assert it.usable("n0")
    assert it.asked["n0"] == 2


@pytest.mark.parametrize("trouble", [Manager.FAILS, Manager.LIES, Manager.SILENT])
def test_two_failures_bring_the_former_layout_back_and_a_rest(trouble: Manager) -> None:
    it = world(SMALL, behaviour={"n0": [trouble, trouble]})
    for _ in range(80):
        it.step(30.0)
        record = it.views()[0].record
        if record is not None and record.step is Step.HELD:
            break
    assert it.gives("n0") == {"gpu": 1}
    assert it.usable("n0")
    ready = next(one for one in pool_status(it.snapshot(), it.plan(), it.now_s)[1] if one["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "RepartitionHeld")
    assert ready["message"].startswith("Not cut anew for half an hour: 'n0'. 'n0': ")
    it.now_s += 1800
    it.run(8)
    assert it.gives("n0") == {"1g.10gb": 7}


def test_the_former_layout_of_ours_comes_back_as_it_was() -> None:
    it = world(SMALL)
    it.run(10)
    it.wants = [Want("demo/s", "3g.40gb", 2, 0)]
    it.behaviour = {"n0": [Manager.FAILS, Manager.FAILS]}
    it.run(20)
    assert it.gives("n0") == {"1g.10gb": 7}
    assert it.usable("n0")


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_node_that_somebody_else_had_cut_goes_back_to_what_it_gave(gpus: int) -> None:
    it = world(Want("demo/s", "2g.20gb", 3 * gpus, 0), behaviour={"n0": [Manager.FAILS, Manager.FAILS]})
    it.nodes["n0"] = node("n0", gpus, m4g_40gb=gpus, m3g_40gb=gpus)
    for _ in range(40):
        plan = it.step(30.0)
        record = it.views()[0].record
        if record is not None and record.step is Step.HELD:
            break
    assert it.usable("n0")
    assert it.gives("n0") == {"4g.40gb": gpus, "3g.40gb": gpus}
    assert any("says 'failed'" in move.message for move in plan.moves)


def test_a_node_that_neither_goes_on_nor_back_is_stuck_says_so_and_heals_when_it_shows_devices() -> None:
    it = stuck()
    assert not it.usable("n0")
    _, made = pool_status(it.snapshot(), it.plan(), it.now_s)
    assert "Reboot it" in made[0]["message"]
    it.nodes["n0"]["status"]["allocatable"] = {"nvidia.com/mig-1g.10gb": "7"}
    it.run(3)
    assert it.usable("n0")
    assert it.views()[0].record is None


def test_a_stuck_node_whose_former_devices_come_back_is_used_and_not_cut_again_at_once() -> None:
    it = stuck()
    asked = it.asked["n0"]
    it.nodes["n0"]["status"]["allocatable"] = {"nvidia.com/mig-7g.80gb": "1"}
    it.run(20)
    assert it.usable("n0")
    assert it.asked["n0"] == asked
    record = it.views()[0].record
    assert record
    assert record.step is Step.HELD


def test_devices_have_their_time_from_the_success_of_a_slow_manager_on() -> None:
    it = world(SMALL, behaviour={"n0": [Manager.SILENT]})
    it.run(2)
    it.now_s += 200.0
    it.nodes["n0"]["metadata"]["labels"][LABEL_STATE] = "success"
    it.run(8)
    assert it.asked["n0"] == 1, "the device plugin starts anew"
    it.nodes["n0"]["status"]["allocatable"] = {"nvidia.com/mig-1g.10gb": "7"}
    it.run(2)
    assert it.usable("n0")
    assert it.views()[0].record is None


def test_a_stuck_node_is_given_back_when_its_pool_goes() -> None:
    it = stuck()
    it.step(deleting=True)
    assert it.usable("n0")
    assert it.views()[0].record is None
    assert "foretide.dev/evacuate" not in it.nodes["n0"]["metadata"]["labels"]
    assert it.plan(deleting=True).moves == ()


def test_a_cordon_of_somebody_else_stays_when_the_pool_of_a_stuck_node_goes() -> None:
    it = world(SMALL)
    stuck = Record(Step.STUCK, it.now_s, (layout({"1g.10gb": 7}),), None, layout({"7g.80gb": 1}), cordoned=False)
    it.nodes["n0"]["metadata"]["annotations"]["foretide.dev/repartition"] = stuck.dump()
    it.nodes["n0"]["spec"]["unschedulable"] = True
    it.step(deleting=True)
    assert not it.usable("n0")
    assert it.plan(deleting=True).moves == ()


def test_a_success_that_is_still_the_last_one_is_not_believed() -> None:
    it = world(SMALL)
    it.nodes["n0"]["metadata"]["labels"]["nvidia.com/mig.config.state"] = "success"
    it.behaviour = {"n0": [Manager.LIES]}
    it.run(5)
    assert not it.usable("n0")


def test_a_node_that_rejoins_with_another_layout_is_cut_again() -> None:
    it = world(SMALL)
    it.run(10)
    it.nodes["n0"]["status"]["allocatable"] = {"nvidia.com/gpu": "1"}
    it.run(10)
    assert it.gives("n0") == {"1g.10gb": 7}
    assert it.asked["n0"] == 2


def test_a_node_that_somebody_cordoned_is_left_alone_and_stays_so() -> None:
    it = world(SMALL)
    it.nodes["n0"]["spec"]["unschedulable"] = True
    it.run(10)
    assert it.asked["n0"] == 0
    assert not it.usable("n0")


def test_no_more_nodes_than_allowed_are_cut_at_once() -> None:
    spec = GPUPoolSpec.model_validate({"nodeSelector": {"pool": "gpus"}, "repartition": {"maxPercentAtOnce": 25}})
    it = world(Want("demo/s", "1g.10gb", 56, 1), nodes=8, spec=spec)
    for _ in range(30):
        it.step()
        assert sum(not it.usable(name) for name in it.nodes) <= 2
    assert sum((it.gives(name) for name in it.nodes), it.gives("n0") - it.gives("n0")) == {"1g.10gb": 56}


def test_nodes_with_workers_wait_for_their_window_and_empty_ones_do_not() -> None:
    # 1 800 000 000 is a Friday, 08:00 UTC.
    night = [{"name": "night", "start": "23:00", "end": "05:00"}]
    spec = GPUPoolSpec.model_validate({"nodeSelector": {"pool": "gpus"}, "repartition": {"windows": night}})
    it = world(Want("demo/s", "3g.40gb", 4, 0), nodes=2, spec=spec)
    it.nodes["n0"] = node("n0", m1g_10gb=7)
    it.put("w", "n0", m1g_10gb=1)
    it.run(10)
    assert (it.gives("n0"), it.gives("n1")) == ({"1g.10gb": 7}, {"3g.40gb": 2})
    it.now_s += 15.5 * 3600
    it.run(10)
    assert it.gives("n0") == {"3g.40gb": 2}


def test_demand_that_cannot_be_met_is_said_with_the_arithmetic() -> None:
    it = world(Want("demo/s", "3g.40gb", 5, 1), Want("demo/t", "7g.80gb", 1, 3))
    it.run(10)
    _, made = pool_status(it.snapshot(), it.plan(), it.now_s)
    unmet = next(one for one in made if one["type"] == "DemandMet")
    assert (unmet["status"], unmet["reason"]) == ("False", "TooFewSlices")
    assert unmet["message"].startswith(
        "demo/s (P1) wants 5 workers on nvidia.com/mig-3g.40gb and gets 2: all services ask for 22 compute slices, and"
        " the usable GPUs have 7. 1 other services wait, too."
    )


def test_a_node_with_strategy_single_or_an_unknown_gpu_is_said_to_be_unusable() -> None:
    it = world(SMALL, nodes=2)
    it.nodes["n0"]["metadata"]["labels"]["nvidia.com/mig.strategy"] = "single"
    it.nodes["n1"]["metadata"]["labels"]["nvidia.com/gpu.product"] = "Tesla-T4"
    it.run(5)
    assert sum(it.asked.values()) == 0
    assert conditions(it)["Stalled"] == ("True", "NodeUnusable")


def test_a_pool_without_nodes_says_which_labels_it_looks_for() -> None:
    it = World({}, [SMALL])
    assert conditions(it)["Ready"] == ("False", "NoNodes")


def test_a_pool_that_goes_starts_nothing_more() -> None:
    assert world(SMALL).plan(deleting=True).moves == ()


def test_several_gpus_of_a_node_get_layouts_of_their_own_and_none_is_cut_and_whole() -> None:
    it = World({"n0": node("n0", gpus=3)}, [Want("demo/a", "1g.10gb", 7, 0), Want("demo/b", "gpu", 1, 0)])
    it.run(10)
    assert it.gives("n0")["1g.10gb"] == 7
    assert it.gives("n0")["gpu"] >= 1
    entries = mig_configs(layouts_of(it.views()))["mig-configs"]
    assert entries["all-disabled"] == [{"devices": "all", "mig-enabled": False}]
    for entry in entries.values():
        devices = [index for part in entry if part["devices"] != "all" for index in part["devices"]]
        assert len(devices) == len(set(devices))
        assert all(part["mig-enabled"] == ("mig-devices" in part) for part in entry)


def test_the_status_is_valid_for_its_schema() -> None:
    it = world(SMALL, nodes=3)
    fields, _ = pool_status(it.snapshot(), it.plan(), it.now_s)
    assert GPUPoolStatus.model_validate(fields).dump() == fields


def test_a_geometry_that_nobody_can_enumerate_takes_its_node_out_and_no_time() -> None:
    it = world(SMALL, nodes=2)
    endless = f"99/99;1g.10gb:1:1:{','.join(map(str, range(99)))}"
    it.nodes["n0"]["metadata"]["annotations"]["foretide.dev/mig-geometry"] = endless
    it.run(10)
    assert it.gives("n1") == {"1g.10gb": 7}
    assert conditions(it)["Stalled"] == ("True", "NodeUnusable")
    assert "in more than 20000 ways" in (it.views()[0].problem or "")


def test_services_that_ask_for_every_profile_there_may_be_do_not_outgrow_the_status() -> None:
    it = world(*(Want(f"demo/s{size}", f"1g.{size}gb", 1) for size in range(1, 100)))
    fields, _ = pool_status(it.snapshot(), it.plan(), it.now_s)
    assert GPUPoolStatus.model_validate(fields).dump() == fields


def test_what_usable_gpus_have_is_counted_by_their_family() -> None:
    it = World({"n0": node("n0", gpus=2, product="NVIDIA-A30")}, [Want("demo/s", "1g.6gb", 9)])
    _, made = pool_status(it.snapshot(), it.plan(), it.now_s)
    assert "the usable GPUs have 8." in next(one["message"] for one in made if one["type"] == "DemandMet")


def test_a_record_survives_the_node_and_nonsense_is_no_record() -> None:
    gpus = (layout({"1g.10gb": 7}), layout({"gpu": 1}))
    record = Record(Step.ASK, 12.5, gpus, None, layout({"gpu": 2}), cordoned=True, attempt=2, reason="because")
    assert Record.read(record.dump()) == record
    endless = record.dump().replace("12.5", "Infinity"), record.dump().replace('"attempt":2', '"attempt":1e999')
    for text in (None, "", "{}", "[]", "nonsense", json.dumps({"step": "fly"}), "[" * 100_000, *endless):
        assert Record.read(text) is None
    assert read_gpus(dump_gpus(gpus)) == gpus
    for text in ('{"a": 1}', "[" * 100_000, '[[["1g.10gb", 1e999]]]'):
        assert read_gpus(text) is None
    assert NodeView.of({"metadata": {"name": "cpu-only"}}) is None


@settings(deadline=None, max_examples=12)
@given(
    acts=st.lists(st.sampled_from(list(Manager)), max_size=8),
    sizes=st.lists(st.sampled_from(["1g.10gb", "2g.20gb", "3g.40gb", "7g.80gb", "gpu"]), min_size=1, max_size=3),
    gaps=st.lists(st.sampled_from([1.0, 10.0, 130.0, 1000.0]), min_size=1, max_size=16),
)
def test_whatever_the_manager_does_no_worker_is_cut_off_and_the_pool_ends_well(
    acts: list[Manager], sizes: list[str], gaps: list[float]
) -> None:
    """Every step plans from the objects alone, so each is a restart. The world asserts what must never happen."""
    it = world(*(Want(f"demo/{i}", size, 2, i) for i, size in enumerate(sizes)), nodes=3, behaviour={"n0": list(acts)})
    for gap in gaps:
        it.step(gap)
    it.behaviour = {}
    for _ in range(8):
        it.run(3, 30.0)
        it.now_s += 1900
    stuck = [one for one in it.views() if one.record is not None and one.record.step is Step.STUCK]
    for one in it.views():
        if one not in stuck:
            assert it.usable(one.name)
    if not stuck:
        assert it.plan().moves == ()


def test_what_the_manager_said_of_the_last_layout_is_not_its_answer_to_the_next() -> None:
    it = world(SMALL, behaviour={"n0": [Manager.FAILS]})
    it.run(5)
    assert it.nodes["n0"]["metadata"]["labels"]["nvidia.com/mig.config.state"] == "failed"
    it.now_s += 90
    asked = [move.patch for move in it.plan().moves if move.patch]
    assert asked[0]["metadata"]["labels"]["nvidia.com/mig.config.state"] is None


def test_a_failure_is_not_followed_by_a_second_try_before_the_configuration_can_have_arrived() -> None:
    it = world(SMALL, behaviour={"n0": [Manager.FAILS]})
    it.run(8)
    assert it.asked["n0"] == 1
    it.run(8)
    assert it.asked["n0"] == 2


def test_a_second_try_waits_no_longer_than_the_pool_lets_the_manager_take() -> None:
    it = world(SMALL, behaviour={"n0": [Manager.FAILS]})
    it.spec = GPUPoolSpec.model_validate({"nodeSelector": {"pool": "gpus"}, "repartition": {"timeout": "20s"}})
    while not it.asked["n0"]:
        it.step(1.0)
    asked_at_s = it.now_s
    while it.asked["n0"] < 2 and it.now_s < asked_at_s + 60:
        it.step(1.0)
    assert 18 <= it.now_s - asked_at_s <= 22
