"""What scenarios of rollouts that compare have in common."""

from __future__ import annotations

from e2e.scenarios.world import Object, World, until

NAME = "canary"


def rollout(world: World) -> Object:
    found: Object = world.status(NAME).get("rollout") or {}
    return found


def tried(world: World, wanted: Object, **changes: object) -> str:
    """Applies an edit; the revision that is tried, which is another than the one that serves."""
    before = {None, world.status(NAME).get("currentRevision"), rollout(world).get("candidate")}
    wanted["spec"] |= changes
    world.kubectl.apply(wanted)

    def found() -> str | None:
        seen = rollout(world)
        return seen.get("candidate") if seen.get("candidate") not in {*before, seen.get("stable")} else None

    return until(found, "a new revision is tried", 60) or ""


def refused(world: World, candidate: str) -> Object:
    """Waits until it was rolled back and is gone; the record of it."""
    until(lambda: rollout(world).get("phase") == "RolledBack", f"{candidate} rolled back", 120)
    until(lambda: "traffic" not in world.status(NAME), "no split is left", 60)
    record: Object = rollout(world)["history"][0]
    assert (record["revision"], record["outcome"]) == (candidate, "RolledBack")
    return record
