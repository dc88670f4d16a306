"""GPUs shared without MIG: what nodes offer, where workers may run, who gets a share, and that nothing of it is cut."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.plans.mig.demand import Want
from controllers.plans.mig.pool import plan_pool
from controllers.plans.mig.pool_status import pool_status
from controllers.plans.mig.records import GpuPod, NodeView
from controllers.plans.mig.sharing import (
    MOST_REPLICAS,
    SHARED_RESOURCE,
    Share,
    ShareWant,
    offers_text,
    serve_shares,
    share_of,
    sharing_terms,
    weak_isolation,
)
from crds.gpu_pool import GPUPoolSpec, GPUPoolStatus
from crds.inference_service import Accelerator, SharedGPU, SharingStrategy
from tests.plans.mig.pool_world import World, node

MPS, TIME = SharingStrategy.MPS, SharingStrategy.TIME_SLICING
H100_MIB = 81559


def labels(strategy: str = "mps", replicas: int = 4, mib: int = H100_MIB) -> dict[str, str]:
    return {
        "nvidia.com/gpu.sharing-strategy": strategy,
        "nvidia.com/gpu.replicas": str(replicas),
        "nvidia.com/gpu.memory": str(mib),
    }


def shared_node(name: str, shares: int = 4, **fields: Any) -> dict[str, Any]:
    one = node(name)
    one["metadata"]["labels"] |= labels(**fields)
    one["status"]["allocatable"] = {SHARED_RESOURCE: str(shares)}
    return one


def shared(strategy: SharingStrategy, gigabytes: int) -> SharedGPU:
    return SharedGPU(strategy=strategy, gigabytes=gigabytes)


def test_a_share_is_the_gpus_memory_divided_by_those_who_share_it() -> None:
    share, _ = share_of(labels(), {SHARED_RESOURCE: "4"})
    assert share == Share(MPS, 4, H100_MIB * 2**20 // 4)
    assert share.gigabytes == 21


@pytest.mark.parametrize(
    ("found", "resources", "said"),
    [
        (labels("magic"), {}, "known are mps, time-slicing"),
        (labels(), {"nvidia.com/gpu": "4"}, "Set renameByDefault: true"),
        (
            labels() | {"nvidia.com/gpu.memory": ""},
            {},
            "no numbers in nvidia.com/gpu.replicas and nvidia.com/gpu.memory",
        ),
        (labels(replicas=1), {}, "allowed are 2 to 16"),
        (labels(replicas=17), {}, "allowed are 2 to 16"),
    ],
)
def test_what_cannot_be_used_says_why(found: dict[str, str], resources: dict[str, str], said: str) -> None:
    share, why = share_of(found, resources)
    assert share is None
    assert said in why


def selected(terms: list[dict[str, Any]], found: dict[str, str]) -> bool:
    """As kube-scheduler reads node selector terms."""

    def true(one: dict[str, Any]) -> bool:
        value = found[one["key"]]
        return int(value) > int(one["values"][0]) if one["operator"] == "Gt" else value in one["values"]

    return any(all(true(one) for one in term["matchExpressions"]) for term in terms)


@given(
    st.sampled_from(["mps", "time-slicing"]),
    st.integers(2, MOST_REPLICAS),
    st.integers(1000, 300_000),
    st.sampled_from([MPS, TIME]),
    st.integers(1, 288),
)
def test_the_scheduler_is_asked_for_exactly_the_nodes_whose_shares_hold_the_worker(
    strategy: str, replicas: int, mib: int, wanted: SharingStrategy, gigabytes: int
) -> None:
    found = labels(strategy, replicas, mib)
    share, _ = share_of(found, {})
    assert share is not None
    assert selected(sharing_terms(shared(wanted, gigabytes)), found) == share.holds(wanted, gigabytes)


WANTS = st.lists(st.tuples(st.sampled_from([10, 20, 40]), st.integers(0, 3), st.integers(0, 3)), max_size=4)
OFFERS = st.lists(st.tuples(st.sampled_from([8, 12, 24, 48]), st.integers(0, 3)), max_size=4)


def most_served(sizes: list[int], shares: list[int]) -> int:
    """By trying every way."""
    for count in range(min(len(sizes), len(shares)), 0, -1):
        for chosen in itertools.combinations(sorted(sizes), count):
            largest = sorted(shares)[-count:]
            if all(share >= size for size, share in zip(chosen, largest, strict=True)):
                return count
    return 0


@given(WANTS, OFFERS)
def test_no_way_of_giving_shares_serves_more_of_the_important(
    asked: list[tuple[int, int, int]], there: list[tuple[int, int]]
) -> None:
    offered = Counter[Share]()
    for gigabytes, count in there:
        offered[Share(MPS, 2, gigabytes * 10**9)] += count
    wants = [ShareWant(f"demo/{i}", MPS, size, n, priority) for i, (size, n, priority) in enumerate(asked)]
    served = serve_shares(wants, offered)
    shares = [share.gigabytes for share in offered.elements()]
    for worst in range(4):
        sizes = [one.gigabytes for one in wants if one.priority <= worst for _ in range(one.replicas)]
        assert sum(one.replicas for one in served if one.want.priority <= worst) == most_served(sizes, shares)


def test_a_share_of_the_other_strategy_is_none() -> None:
    want = ShareWant("demo/chat", MPS, 10, 1)
    assert serve_shares([want], {Share(TIME, 4, 20 * 10**9): 4})[0].missing == 1


def test_offers_are_read_at_a_glance() -> None:
    found = {Share(MPS, 4, 20_100_000_000): 8, Share(MPS, 2, 20_000_000_000): 2, Share(TIME, 8, 10**10): 3}
    assert offers_text(found) == "10×20gb mps + 3×10gb timeSlicing"


def test_weak_isolation_is_told_of_shared_gpus_only() -> None:
    for strategy, reason in ((MPS, "MPS"), (TIME, "TimeSlicing")):
        weak = weak_isolation(Accelerator(shared=shared(strategy, 10)))
        assert weak is not None
        assert weak[0] == reason
        assert "use accelerator.mig" in weak[1]
    assert weak_isolation(Accelerator.model_validate({"gpu": {}})) is None


def test_a_shared_node_is_never_cut_and_the_status_says_what_it_offers() -> None:
    it = World({"n0": node("n0"), "n1": shared_node("n1")}, [Want("demo/s", "1g.10gb", 14, 0)])
    it.pods["w"] = GpuPod("demo", "w", "uid", "n1", (), "chat", shares=1)
    it.run(10)
    assert it.asked == {"n0": 1}
    fields, _ = pool_status(it.snapshot(), it.plan(), it.now_s)
    GPUPoolStatus.model_validate(fields)
    assert fields["layout"] == "7×1g.10gb + 4×21gb mps"
    assert fields["sharing"] == [{"strategy": "mps", "replicas": 4, "gigabytes": 21, "shares": 4, "used": 1}]
    assert [one["state"] for one in fields["nodes"]] == ["Ready", "Shared"]
    assert "mps, 4 on each, 21 GB for one" in fields["nodes"][1]["message"]


def test_workers_without_a_share_are_unmet_demand_with_the_arithmetic() -> None:
    it = World({"n0": shared_node("n0")}, [])
    it.pods["x"] = GpuPod("demo", "x", "uid", "n0", (), None, shares=1)
    wants = (ShareWant("demo/chat", MPS, 20, 5, 1), ShareWant("demo/other", TIME, 20, 1, 3))
    seen = dataclasses.replace(it.snapshot(), share_wants=wants)
    fields, made = pool_status(seen, plan_pool(seen, it.now_s), it.now_s)
    condition = next(one for one in made if one["type"] == "DemandMet")
    assert condition["reason"] == "TooFewShares"
    assert "demo/chat (P1) wants 5 workers on mps 20gb and gets 3: 4 shares of the pool" in condition["message"]
    assert "1 other services wait, too" in condition["message"]
    assert fields["served"] == "3/6"
    assert [one["profile"] for one in fields["unmet"]] == ["mps 20gb", "timeSlicing 20gb"]
    GPUPoolStatus.model_validate(fields)


def test_all_shares_given_is_met_demand() -> None:
    it = World(
        {"n0": shared_node("n0", strategy="time-slicing", replicas=2)}, [], spec=GPUPoolSpec(node_selector={"a": "b"})
    )
    seen = dataclasses.replace(it.snapshot(), share_wants=(ShareWant("demo/chat", TIME, 40, 2, 1),))
    fields, made = pool_status(seen, plan_pool(seen, it.now_s), it.now_s)
    assert fields["layout"] == "4×42gb timeSlicing"
    assert next(one for one in made if one["type"] == "DemandMet")["message"] == (
        "All 2 workers have a slice or a share of a GPU."
    )
    assert "2 of 2 workers get a share of a shared GPU" in fields["reason"]


def test_a_node_that_shows_shares_as_whole_gpus_is_refused_by_name() -> None:
    one = shared_node("n0")
    one["status"]["allocatable"]["nvidia.com/gpu"] = "4"
    view = NodeView.of(one)
    assert view is not None
    assert (view.share, view.problem and view.problem.startswith("Node 'n0' shares GPUs")) == (None, True)


def test_a_gpu_that_cannot_be_cut_may_still_be_shared() -> None:
    one = shared_node("n0")
    one["metadata"]["labels"]["nvidia.com/gpu.product"] = "Tesla-T4"
    view = NodeView.of(one)
    assert view is not None
    assert view.problem is None
    assert view.shares == 4
