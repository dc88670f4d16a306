"""ResourceSlices and ResourceClaims as a pool sees them: what there is, who holds it, what is unusable."""

from __future__ import annotations

from typing import Any

from controllers.plans.mig.demand import Want
from controllers.plans.mig.devices import (
    ClaimView,
    SliceView,
    holders,
    missing_api,
    published,
    with_devices,
)
from controllers.plans.mig.layouts import Layout
from controllers.plans.mig.pool import PoolSnapshot, plan_pool
from controllers.plans.mig.pool_status import pool_status
from controllers.plans.mig.records import GpuPod, NodeView
from crds.gpu_pool import GPUPoolSpec
from crds.inference_service import Allocation
from tests.plans.mig.device_world import claim, resource_slice
from tests.plans.mig.pool_world import node


def slices(*objects: dict[str, Any]) -> list[SliceView]:
    return [view for one in objects if (view := SliceView.of(one)) is not None]


def layout_of(*objects: dict[str, Any]) -> Layout:
    (found,) = published(slices(*objects)).values()
    return found.layout


def view(name: str = "n0", **fields: Any) -> NodeView:
    """A node without the device plugin."""
    one = node(name, **fields)
    one["status"]["allocatable"] = {"cpu": "4"}
    found = NodeView.of(one)
    assert found is not None
    return found


def test_devices_are_counted_by_profile_and_whole_gpus_as_such() -> None:
    one = resource_slice("n0", ["3g.40gb", "1g.10gb", "1g.10gb", "gpu"])
    assert layout_of(one) == (("1g.10gb", 2), ("3g.40gb", 1), ("gpu", 1))


def test_only_the_newest_generation_counts_and_only_when_all_of_it_is_there() -> None:
    old = resource_slice("n0", ["7g.80gb"], generation=1)
    first = resource_slice("n0", ["1g.10gb"], generation=2, part=0, parts=2)
    second = resource_slice("n0", ["2g.20gb"], generation=2, part=1, parts=2)
    assert layout_of(old, first) == ()
    assert layout_of(old, first, second) == (("1g.10gb", 1), ("2g.20gb", 1))


def test_other_drivers_tainted_devices_and_what_is_no_profile_do_not_count() -> None:
    one = resource_slice("n0", ["1g.10gb", "2g.20gb", "1c.2g.20gb"])
    one["spec"]["devices"][1]["taints"] = [{"key": "broken", "effect": "NoSchedule"}]
    assert layout_of(one) == (("1g.10gb", 1),)
    one["spec"]["driver"] = "compute-domain.nvidia.com"
    assert slices(one) == []


def test_a_node_is_as_its_slices_say_and_not_as_its_status_does() -> None:
    by_pool = published(slices(resource_slice("n0", ["1g.10gb"] * 7)))
    seen = with_devices(view(), by_pool)
    assert (seen.now, seen.problem) == ((("1g.10gb", 7),), None)


def test_a_node_that_publishes_nothing_is_unusable_and_says_what_to_install() -> None:
    problem = with_devices(view(), {}).problem or ""
    assert "no ResourceSlice of driver gpu.nvidia.com" in problem
    assert "Install NVIDIA's DRA driver" in problem


def test_a_node_that_gives_its_devices_in_both_ways_is_unusable() -> None:
    both = NodeView.of(node("n0", m1g_10gb=7))
    assert both is not None
    problem = with_devices(both, published(slices(resource_slice("n0", ["1g.10gb"])))).problem or ""
    assert "could be given twice" in problem


def test_devices_that_a_claim_would_cut_cannot_be_planned() -> None:
    one = resource_slice("n0", ["1g.10gb"])
    one["spec"]["devices"][0]["consumesCounters"] = [{"counterSet": "gpu-0"}]
    assert "DynamicMIG" in (with_devices(view(), published(slices(one))).problem or "")


def test_whoever_a_claim_is_reserved_for_holds_its_devices() -> None:
    by_pool = published(slices(resource_slice("n0", ["1g.10gb", "3g.40gb"])))
    worker = GpuPod("demo", "w0", "u0", None, (), "chat", claims=True)
    claims = [
        ClaimView.of(claim("demo", "w0-x", "n0", [0], pods={"w0": "u0"})),
        ClaimView.of(claim("demo", "alone", "n0", [1])),
        ClaimView.of(claim("demo", "waiting", "n0", [])),
    ]
    alone, held = holders([one for one in claims if one is not None], [worker], by_pool)
    assert (held.node, held.slices, held.service) == ("n0", (("1g.10gb", 1),), "chat")
    assert (alone.what, alone.name, alone.slices, alone.service) == ("ResourceClaim", "alone", (("3g.40gb", 1),), None)


def test_a_device_that_is_published_no_more_is_held_all_the_same() -> None:
    one = ClaimView.of(claim("demo", "x", "n0", [0], pods={"w0": "u0"}))
    assert one is not None
    (held,) = holders([one], [], {})
    assert (held.node, held.slices, held.service) == ("n0", (), None)


def test_several_claims_of_a_pod_add_up_and_a_shared_one_is_counted_once() -> None:
    by_pool = published(slices(resource_slice("n0", ["1g.10gb", "1g.10gb"])))
    both = {"a": "ua", "b": "ub"}
    found = [
        ClaimView.of(claim("demo", "x", "n0", [0], pods={"a": "ua"})),
        ClaimView.of(claim("demo", "y", "n0", [1], pods=both)),
    ]
    a, b = holders([one for one in found if one is not None], [], by_pool)
    assert (a.slices, b.slices) == ((("1g.10gb", 2),), ())


def pool(nodes: tuple[NodeView, ...], *wants: Want, **fields: Any) -> PoolSnapshot:
    spec = GPUPoolSpec(node_selector={"pool": "gpus"}, allocation=Allocation.RESOURCE_CLAIMS)
    return PoolSnapshot("gpus", 1, spec, nodes, (), wants, **fields)


def conditions(seen: PoolSnapshot) -> dict[str, dict[str, Any]]:
    _, made = pool_status(seen, plan_pool(seen, 0.0), 0.0)
    return {one["type"]: one for one in made}


def test_a_pool_in_a_cluster_without_the_api_says_what_to_do() -> None:
    found = conditions(pool((with_devices(view(), {}),), missing_api=missing_api(False, ())))
    assert found["Ready"]["reason"] == "NoResourceClaims"
    assert "Kubernetes does from 1.34 on" in found["Ready"]["message"]
    assert found["Stalled"]["status"] == "True"
    assert (missing_api(True, {"gpu.nvidia.com"}) or ("", ""))[0] == "NoDeviceClass"
    assert missing_api(True, {"gpu.nvidia.com", "mig.nvidia.com"}) is None


def test_a_profile_that_nobody_publishes_and_nothing_can_become_is_named() -> None:
    seen = with_devices(view(), published(slices(resource_slice("n0", ["1g.10gb"] * 7))))
    found = conditions(pool((seen,), Want("demo/chat", "1g.5gb", 2)))
    assert found["DemandMet"]["status"] == "False"
    assert "publishes profile 1g.5gb; published are 7×1g.10gb" in found["DemandMet"]["message"]
