"""A revision that is as good is promoted though the operator dies in between; one that never starts changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from e2e.install import SYSTEM
from e2e.load import Load
from e2e.scenarios.canaries import NAME, refused, rollout, tried
from e2e.scenarios.world import Object, World, until

Measured = Callable[[str, str], None]

ROLLOUT = {
    "strategy": "canary",
    "steps": [{"weight": 30, "duration": "2s"}, {"weight": 50, "duration": "2s"}],
    # Two workers share two cores with everything else here: only a revision that is much slower may count as slower.
    "analysis": {"confidence": "95%", "tolerance": 40, "margin": 200, "errorMargin": "20%", "minRequests": 60},
    "guardrails": {"readyTimeout": "60s"},
    "outputs": {"prompts": ["The capital of France is", "One, two, three, four,"], "maxTokens": 8},
}


def test_a_good_revision_is_promoted_and_one_that_never_starts_rolled_back_under_load(
    world: World, measured: Measured
) -> None:
    with world.serving(NAME, replicas=1, rollout=ROLLOUT) as wanted, world.load(NAME, clients=6, stream=True) as load:
        good = _a_good_one_is_promoted(world, wanted, load, measured)
        _one_that_no_node_takes(world, wanted, measured)
        assert rollout(world)["stable"] == good
        assert [one["outcome"] for one in rollout(world)["history"]] == ["RolledBack", "Promoted"]
    measured("canaries under load", str(load.account()))
    assert not load.account().troubles


def _a_good_one_is_promoted(world: World, wanted: Object, load: Load, measured: Measured) -> str:
    started = time.monotonic()
    good = tried(world, wanted, engine={"maxModelLen": 896, "kvCache": "128Mi"})
    until(lambda: rollout(world).get("verdicts"), "something was measured", 90)
    world.kill(world.leader(), SYSTEM)
    until(lambda: rollout(world).get("stable") == good, "the good revision is promoted", 180)
    until(lambda: "traffic" not in world.status(NAME), "no split is left", 60)
    measured("good revision: edit → promoted, operator killed in between", f"{time.monotonic() - started:.1f} s")
    assert good in load.account().revisions
    return good


def _one_that_no_node_takes(world: World, wanted: Object, measured: Measured) -> None:
    started = time.monotonic()
    record = refused(world, tried(world, wanted, nodeSelector={"no-such": "node"}))
    measured("revision that is never ready: edit → rolled back", f"{time.monotonic() - started:.1f} s")
    assert record["reason"] == "NeverReady"
    wanted["spec"].pop("nodeSelector")
