"""GPUs cut into slices: pods on planned slices, a node cut anew under open streams, and a manager that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from e2e.cluster.cluster import Cluster
from e2e.cluster.images import SLICE_WORKER
from e2e.install import SYSTEM, install, resource
from e2e.mig_manager import CONFIG, NAMESPACE, STATE, MigManager, offer
from e2e.scenarios.world import Object, World, until
from e2e.target import Target

Measured = Callable[[str, str], None]

PRODUCT = "NVIDIA-H100-80GB-HBM3"
LABELS = {"foretide.test/pool": "gpus", "nvidia.com/gpu.product": PRODUCT, "nvidia.com/gpu.count": "1"}
OURS = ("foretide.dev/mig-layout", "foretide.dev/repartition", "foretide.dev/interruption")
SPOT_NOTICE = "aws-node-termination-handler/spot-itn"
SHARED = {"sharing-strategy": "mps", "replicas": "2", "memory": "81559"}
"""Of the labels `nvidia.com/gpu.*`, what the device plugin of a node that shares its GPUs says."""


@pytest.fixture(scope="module")
def nodes(target: Target, own_cluster: Cluster | None, world: World) -> Iterator[list[str]]:
    """Two nodes that say they have one H100 each, already cut in 4g + 3g; and Foretide that cuts them."""
    if own_cluster is None:
        pytest.skip("the nodes of this cluster are not ours to change")
    names = [node["metadata"]["name"] for node in world.kubectl.items("nodes")]
    if len(names) < 2:
        pytest.skip("workers move to a second node; this cluster has one")
    world.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    image = f"foretide/{SLICE_WORKER}:{target.chart_values['image']['tag']}"
    more = {"gpuPools": {"enabled": True}, "workers": {"gpu": {"image": image}}}
    try:
        install(world.kubectl, target.chart_values | more)
        for name in names:
            world.kubectl("label", "node", name, "--overwrite", *(f"{key}={value}" for key, value in LABELS.items()))
            offer(world.kubectl, name, {"nvidia.com/mig-4g.40gb": 1, "nvidia.com/mig-3g.40gb": 1})
        yield names
    finally:
        with MigManager(world.kubectl):  # A node that is under way comes to its end before the pool goes.
            world.kubectl("delete", "gpupools", "--all", "--timeout=180s")
        for name in names:
            world.kubectl("uncordon", name)
            offer(world.kubectl, name, {})
            world.kubectl("label", "node", name, *(f"{key}-" for key in (*LABELS, CONFIG, STATE)))
            world.kubectl("annotate", "node", name, *(f"{key}-" for key in OURS))
        install(world.kubectl, target.chart_values)


@pytest.fixture
def manager(world: World) -> Iterator[MigManager]:
    with MigManager(world.kubectl) as it:
        yield it


def pool(world: World, *profiles: str, **repartition: str) -> None:
    spec = {
        "nodeSelector": {"foretide.test/pool": "gpus"},
        "profiles": list(profiles),
        "wholeGpus": False,
        "repartition": {"maxPercentAtOnce": 50, "moveTimeout": "5m"} | repartition,
    }
    world.kubectl.apply(
        {"apiVersion": "foretide.dev/v1alpha1", "kind": "GPUPool", "metadata": {"name": "gpus"}} | {"spec": spec}
    )


def slice_of(profile: str) -> Object:
    return {"mig": {"profile": profile, "cores": "100m", "memory": "1500Mi"}}


def offered_by(world: World, node: str) -> dict[str, int]:
    """GPUs, slices and shares; a kind that is used up in one layout is not there in another."""
    offered = world.kubectl.get("node", node)["status"]["allocatable"]
    return {name: int(n) for name, n in offered.items() if name.startswith("nvidia.com/") and n != "0"}


def status(world: World) -> Object:
    found = world.kubectl.get("gpupool", "gpus") or {}
    it: Object = found.get("status", {})
    return it


def state_of(world: World, node: str) -> str:
    return next((str(one["state"]) for one in status(world).get("nodes", []) if one["name"] == node), "")


def node_of(world: World, service: str) -> str:
    """Of its one worker."""
    return next((str(pod["spec"].get("nodeName", "")) for pod in world.pods(service)), "")


def kill_the_pools(world: World) -> None:
    """Every process of GPU pools dies without a goodbye."""
    for pod in world.select("pods", "app.kubernetes.io/name=foretide-gpu-pools", SYSTEM):
        world.kill(pod["metadata"]["name"], SYSTEM)


@contextmanager
def cordoned(world: World, node: str) -> Iterator[None]:
    """As a person would, so that the next worker goes elsewhere."""
    world.kubectl("cordon", node)
    try:
        yield
    finally:
        world.kubectl("uncordon", node)


def test_a_worker_runs_on_a_planned_slice_and_the_pool_says_why(
    world: World, nodes: list[str], manager: MigManager, measured: Measured
) -> None:
    pool(world, "1g.10gb", "7g.80gb")
    with world.serving("sliced", accelerator=slice_of("1g.10gb")):
        assert "paris" in world.ask("sliced").lower()
        node = node_of(world, "sliced")
        until(lambda: state_of(world, node) == "Ready", "the node is as planned")
        offered = world.kubectl.get("node", node)["status"]["allocatable"]
        assert offered["nvidia.com/mig-1g.10gb"] == "7"
        assert "1 of 1 workers get a slice on 2 GPUs" in status(world)["reason"]
        shown = world.kubectl("get", "gpupools").splitlines()[0].split()
        assert shown[:6] == ["NAME", "GPUS", "CLASS", "LAYOUT", "SERVED", "FRAGMENTATION"]
        measured("kubectl get gpupools", world.kubectl("get", "gpupools", "--no-headers").strip())
    assert not manager.violations


def test_what_no_gpu_can_give_is_a_condition_with_the_arithmetic(
    world: World, nodes: list[str], manager: MigManager
) -> None:
    pool(world, "1g.10gb", "7g.80gb")
    world.kubectl.apply(world.service("toomany", accelerator=slice_of("7g.80gb"), replicas=3))
    try:
        until(lambda: world.condition("gpupool/gpus", "DemandMet").get("status") == "False", "unmet demand is told")
        message = world.condition("gpupool/gpus", "DemandMet")["message"]
        assert "demo/toomany (P3) wants 3 workers on nvidia.com/mig-7g.80gb and gets 2" in message
        assert "21 compute slices, and the usable GPUs have 14" in message
    finally:
        world.kubectl("-n", "demo", "delete", "inferenceservice", "toomany", "--timeout=120s")


@contextmanager
def taken_away(world: World, node: str) -> Iterator[None]:
    """The notice that a spot machine gets, as the termination handler writes it; it is withdrawn at the end."""
    world.kubectl("taint", "node", node, f"{SPOT_NOTICE}=soon:NoSchedule")
    try:
        yield
    finally:
        world.kubectl("taint", "node", node, f"{SPOT_NOTICE}-")


def test_a_spot_node_with_a_notice_gets_successors_first_and_loses_no_request(
    world: World, nodes: list[str], manager: MigManager, measured: Measured
) -> None:
    pool(world, "3g.40gb", "4g.40gb")
    both_are_halved(world, nodes, manager)
    with world.serving("spot", accelerator=slice_of("3g.40gb")):
        (first,) = world.pods("spot")
        node = first["spec"]["nodeName"]
        with world.load("spot", stream=True, max_tokens=120, clients=2) as load:
            until(lambda: load.answered >= 2, "the load")
            with taken_away(world, node):
                until(lambda: state_of(world, node) == "Leaving", "the pool knows of it")
                assert world.condition("gpupool/gpus", "Ready")["reason"] == "NodesLeaving"
                until(lambda: world.kubectl.get("-n", "demo", "pod", first["metadata"]["name"]) is None, "it left", 150)
                assert node_of(world, "spot") != node
                goal = load.answered + 2
                until(lambda: load.answered >= goal, "answers of the successor")
            until(lambda: state_of(world, node) != "Leaving", "the node is as others again")
        measured("spot notice under streams", str(load.account()))
        assert not load.account().troubles


@contextmanager
def shares(world: World, node: str) -> Iterator[None]:
    """The node says that two share its GPU by MPS, and offers both shares."""
    before = offered_by(world, node)
    labels = {f"nvidia.com/gpu.{key}": value for key, value in SHARED.items()}
    world.kubectl("label", "node", node, *(f"{key}={value}" for key, value in labels.items()))
    offer(world.kubectl, node, {"nvidia.com/gpu.shared": 2})
    try:
        yield
    finally:
        offer(world.kubectl, node, before)
        world.kubectl("label", "node", node, *(f"{key}-" for key in labels))


def test_a_worker_runs_on_a_share_of_a_gpu_and_says_how_weakly_it_is_kept_apart(
    world: World, nodes: list[str], manager: MigManager
) -> None:
    pool(world, "3g.40gb", "4g.40gb")
    both_are_halved(world, nodes, manager)
    cuts = list(manager.cuts)
    on = {"shared": {"strategy": "mps", "gigabytes": 20, "cores": "100m", "memory": "1500Mi"}}
    with shares(world, nodes[0]), world.serving("sharing", accelerator=on):
        assert node_of(world, "sharing") == nodes[0]
        share = {"strategy": "mps", "replicas": 2, "gigabytes": 42, "shares": 2, "used": 1}
        until(lambda: status(world).get("sharing") == [share], "the share in use is counted")
        assert state_of(world, nodes[0]) == "Shared"
        weak = world.condition("inferenceservice/sharing", "WeakIsolation")
        assert (weak["status"], weak["reason"]) == ("True", "MPS")
    until(lambda: state_of(world, nodes[0]) == "Ready", "the node may be cut again")
    assert manager.cuts == cuts, "a node that shares is not cut"


def test_a_node_is_cut_anew_under_open_streams_while_the_operator_is_killed_at_each_step(
    world: World, nodes: list[str], manager: MigManager, measured: Measured
) -> None:
    """Two services on two nodes, a third wants a whole GPU: one worker moves, no request is lost."""
    manager.delay_s = 8.0
    pool(world, "3g.40gb", "4g.40gb")
    both_are_halved(world, nodes, manager)
    with ExitStack() as stack:
        for name, profile, here, there in (("left", "4g.40gb", 0, 1), ("right", "3g.40gb", 1, 0)):
            with cordoned(world, nodes[there]):
                stack.enter_context(world.serving(name, accelerator=slice_of(profile)))
            assert node_of(world, name) == nodes[here]
        cut_under_load(world, nodes[1], manager, measured)


def both_are_halved(world: World, nodes: list[str], manager: MigManager) -> None:
    """The scenarios before left other layouts: two workers of each size ask for 4g + 3g on both nodes."""
    for name, profile in (("left", "4g.40gb"), ("right", "3g.40gb")):
        world.kubectl.apply(world.service(name, accelerator=slice_of(profile), replicas=2))
    halves = {"nvidia.com/mig-4g.40gb": "1", "nvidia.com/mig-3g.40gb": "1"}

    def offered() -> bool:
        found = [world.kubectl.get("node", name) for name in nodes]
        usable = not any(one["spec"].get("unschedulable") for one in found)
        return usable and all(halves.items() <= one["status"]["allocatable"].items() for one in found)

    until(offered, "both nodes offer 4g and 3g", 120)
    for name in ("left", "right"):
        world.kubectl("-n", "demo", "delete", "inferenceservice", name, "--timeout=120s")


def cut_under_load(world: World, node: str, manager: MigManager, measured: Measured) -> None:
    cuts = len(manager.cuts)
    with world.load("right", stream=True, max_tokens=120, clients=2) as load:
        until(lambda: load.answered >= 2, "the load")
        world.kubectl.apply(resource("SLA", "first", "demo", priority="P0"))
        pool(world, "3g.40gb", "4g.40gb", "7g.80gb")
        world.kubectl.apply(world.service("wide", accelerator=slice_of("7g.80gb"), sla="first"))
        try:
            until(lambda: state_of(world, node) == "Moving", "workers move")
            kill_the_pools(world)
            until(lambda: len(manager.cuts) > cuts, "the manager is asked", 240)
            kill_the_pools(world)
            world.wait("inferenceservice/wide", timeout_s=240)
            kill_the_pools(world)
            assert node_of(world, "wide") == node
            goal = load.answered + 3
            until(lambda: load.answered >= goal, "answers after the cut")
        finally:
            world.kubectl("-n", "demo", "delete", "inferenceservice", "wide", "--timeout=120s")
    measured("node cut anew under streams, 3 kills", str(load.account()))
    assert not load.account().troubles
    assert not manager.violations
    assert node_of(world, "left") == node_of(world, "right") != node


def test_a_repartition_that_fails_twice_goes_back_and_is_held_with_its_reason(
    world: World, nodes: list[str], manager: MigManager
) -> None:
    """The last: what is held rests for half an hour."""
    node, other = nodes
    pool(world, "2g.20gb", "3g.40gb", "4g.40gb", timeout="20s")
    both_are_halved(world, nodes, manager)
    before, cuts = offered_by(world, node), len(manager.cuts)
    manager.failures[node] = 2
    with cordoned(world, other):  # Nobody else is cut instead.
        world.kubectl.apply(world.service("small", accelerator=slice_of("2g.20gb")))
        try:
            until(lambda: state_of(world, node) == "Held", "the node is held", 180)
        finally:
            world.kubectl("-n", "demo", "delete", "inferenceservice", "small", "--timeout=120s")
        until(lambda: world.condition("gpupool/gpus", "Ready").get("reason") == "RepartitionHeld", "the pool says so")
        message = world.condition("gpupool/gpus", "Ready")["message"]
        assert f"Not cut anew for half an hour: '{node}'." in message
        assert f"The MIG manager of '{node}' says 'failed'." in message
        assert "RepartitionHeld" in world.kubectl("get", "gpupools")
    until(lambda: [name for name, _ in manager.cuts[cuts:]] == [node] * 3, "it was cut twice, and back")
    assert "unschedulable" not in world.kubectl.get("node", node)["spec"]
    until(lambda: offered_by(world, node) == before, "it offers what it did")
    assert not manager.violations
