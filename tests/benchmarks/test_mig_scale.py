"""A small run on fake nodes with real schedulers and controllers, and that a wrong placement would be found."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from benchmarks.mig.scale import QUICK, rows, run
from benchmarks.mig.workers import Scale, misplaced
from e2e.cluster.progress import Progress
from e2e.fake_nodes import gpu_node, resource_slice

ONE = Scale(nodes=2, workers=2)
"""One node and one worker of each profile in each pool."""
PROFILES = ("1g.10gb", "2g.20gb", "3g.40gb", "7g.80gb", "gpu")


def pod(pool: str, profile: str) -> dict[str, Any]:
    name = f"{pool}-{profile.replace('.', '-')}"
    meta = {"name": name, "uid": f"uid-{name}", "labels": {"foretide.dev/inference-service": name}}
    return {"metadata": meta, "spec": {"nodeName": f"{pool}-0000"}}


def claim(number: int, profile: str) -> dict[str, Any]:
    results = [{"pool": "claims-0000", "device": f"device-{number}"}]
    reserved = [{"resource": "pods", "uid": pod("claims", profile)["metadata"]["uid"]}]
    return {"status": {"allocation": {"devices": {"results": results}}, "reservedFor": reserved}}


def world() -> dict[str, list[dict[str, Any]]]:
    """As planned: a slice of each profile on each node, and a worker on each."""
    names = [f"nvidia.com/mig-{one}" for one in PROFILES[:-1]] + ["nvidia.com/gpu"]
    plugin = gpu_node("plugin-0000", 8, {}) | {"status": {"allocatable": dict.fromkeys(names, "1")}}
    claims = gpu_node("claims-0000", 8, {}) | {"status": {"allocatable": {}}}
    return {
        "nodes": [plugin, claims],
        "pods": [pod(pool, one) for pool in ("plugin", "claims") for one in PROFILES],
        "slices": [resource_slice("claims-0000", dict.fromkeys(PROFILES, 1), 1)],
        "claims": [claim(number, one) for number, one in enumerate(sorted(PROFILES))],
    }


def wrong(seen: dict[str, list[dict[str, Any]]]) -> list[str]:
    return misplaced(ONE, seen["nodes"], seen["pods"], seen["slices"], seen["claims"])


def test_what_lies_as_planned_is_not_complained_of() -> None:
    assert wrong(world()) == []


def test_every_kind_of_wrong_placement_is_found() -> None:
    few, elsewhere, crowded, twice, other, none = (copy.deepcopy(world()) for _ in range(6))
    few["pods"].pop()
    elsewhere["pods"][0]["spec"]["nodeName"] = "claims-0000"
    crowded["nodes"][0]["status"]["allocatable"]["nvidia.com/gpu"] = "0"
    twice["claims"][1] = claim(0, sorted(PROFILES)[1])
    other["slices"][0]["spec"]["devices"][0]["attributes"]["profile"] = {"string": "4g.40gb"}
    none["claims"].pop()
    assert wrong(few) == ["claims-gpu has 0 of 1 workers"]
    assert wrong(elsewhere) == ["plugin-1g-10gb is on 'claims-0000', which is not in pool plugin"]
    assert wrong(crowded) == ["plugin-gpu is on plugin-0000, which has no gpu for it"]
    assert any("given twice" in one for one in wrong(twice))
    assert any("a 4g.40gb" in one for one in wrong(other))
    assert wrong(none) == ["claims-gpu has no claim"]


@pytest.mark.apiserver
async def test_on_ten_fake_nodes_every_worker_gets_its_slice_and_then_nobody_writes() -> None:
    found = await run(QUICK, Progress())
    assert found.wrong == ()
    assert found.quiet_writes.objects == 0, str(found.quiet_writes)
    assert found.cut_nodes >= 2
    assert all(row.met is not False for row in rows(QUICK, found))
