"""A node is drained, as for maintenance, while clients ask."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from e2e.scenarios.world import World, until

Measured = Callable[[str, str], None]


def _node_of(world: World, service: str) -> set[str]:
    return {pod["spec"].get("nodeName", "") for pod in world.pods(service)}


def test_draining_a_node_under_load_fails_no_request(world: World, measured: Measured) -> None:
    nodes = [node["metadata"]["name"] for node in world.kubectl.items("nodes")]
    if len(nodes) < 2:
        pytest.skip("a drain needs a second node; this cluster has one")
    with world.serving("moving", replicas=2), world.load("moving") as load:
        until(lambda: len(_node_of(world, "moving")) == 2, "workers on two nodes", 60)
        until(lambda: load.answered >= 5, "the load")
        try:
            selector = "--pod-selector=foretide.dev/inference-service=moving"
            flags = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"]
            world.kubectl("drain", nodes[-1], selector, *flags)
            world.rolled("moving", 2)
            assert _node_of(world, "moving") == {nodes[0]}
            goal = load.answered + 5
            until(lambda: load.answered >= goal, "answers after the drain")
        finally:
            world.kubectl("uncordon", nodes[-1])
    measured("node drained under load", str(load.account()))
    assert not load.account().troubles
