"""What breaks or changes while clients ask: no non-streamed request may fail."""

from __future__ import annotations

import time
from collections.abc import Callable

from e2e.load import Load
from e2e.scenarios.world import World, until

Measured = Callable[[str, str], None]


def _flowing(load: Load, more: int = 5) -> None:
    """Returns when `more` further requests were answered: the load is really there."""
    goal = load.answered + more
    until(lambda: load.answered >= goal, f"{more} more answers under load", 60)


def test_a_pod_killed_under_load_loses_no_request(world: World, measured: Measured) -> None:
    with world.serving("victim", replicas=2), world.load("victim") as load:
        until(lambda: len(world.pods("victim")) == 2, "two workers")
        _flowing(load)
        doomed = world.pods("victim")[0]["metadata"]["name"]
        killed = time.monotonic()
        world.kill(doomed, "demo")
        _flowing(load, 10)
        world.rolled("victim", 2)
        measured("pod killed → two workers ready again", f"{time.monotonic() - killed:.1f} s")
        _flowing(load)
    measured("pod killed under load", str(load.account()))
    assert not load.account().troubles


def test_a_new_revision_and_the_way_back_under_load_fail_no_request(world: World, measured: Measured) -> None:
    with world.serving("rolling", replicas=1) as wanted, world.load("rolling") as load:
        first = world.rolled("rolling", 1)
        _flowing(load)
        wanted["spec"]["engine"] = {"maxModelLen": 768, "kvCache": "128Mi"}
        started = time.monotonic()
        world.kubectl.apply(wanted)
        second = world.rolled("rolling", 1)
        measured("edit → new revision alone", f"{time.monotonic() - started:.1f} s")
        assert second != first
        _flowing(load)
        wanted["spec"]["engine"] = {"maxModelLen": 1024, "kvCache": "128Mi"}
        world.kubectl.apply(wanted)
        assert world.rolled("rolling", 1) == first
        _flowing(load)
    measured("new revision and back under load", str(load.account()))
    assert not load.account().troubles
    assert load.account().revisions == [first, second]


def test_a_rapid_edit_and_revert_under_load_fails_no_request(world: World, measured: Measured) -> None:
    with world.serving("hasty", replicas=1) as wanted, world.load("hasty") as load:
        first = world.rolled("hasty", 1)
        serving = {pod["metadata"]["uid"] for pod in world.pods("hasty")}
        _flowing(load)
        for length in (512, 640, 768, 1024):
            wanted["spec"]["engine"] = {"maxModelLen": length, "kvCache": "128Mi"}
            world.kubectl.apply(wanted)
            until(lambda: load.answered, "an answer between two edits")
        assert world.rolled("hasty", 1) == first
        _flowing(load)
        assert {pod["metadata"]["uid"] for pod in world.pods("hasty")} == serving, "the serving worker was replaced"
    measured("three edits and a revert under load", str(load.account()))
    assert not load.account().troubles


def test_scaling_up_and_down_under_load_fails_no_request(world: World, measured: Measured) -> None:
    with world.serving("elastic", replicas=1), world.load("elastic") as load:
        _flowing(load)
        started = time.monotonic()
        world.kubectl("-n", "demo", "scale", "inferenceservice/elastic", "--replicas=3")
        world.rolled("elastic", 3)
        measured("scale 1 → 3", f"{time.monotonic() - started:.1f} s")
        _flowing(load)
        started = time.monotonic()
        world.kubectl("-n", "demo", "scale", "inferenceservice/elastic", "--replicas=1")
        world.rolled("elastic", 1)
        until(lambda: len(world.select("pods", "foretide.dev/inference-service=elastic")) == 1, "two workers gone", 90)
        measured("scale 3 → 1, streams ended", f"{time.monotonic() - started:.1f} s")
        _flowing(load)
    measured("scale 1 → 3 → 1 under load", str(load.account()))
    assert not load.account().troubles


def test_streams_end_whole_when_their_worker_is_taken_away_in_order(world: World, measured: Measured) -> None:
    with world.serving("streams", replicas=2), world.load("streams", stream=True, max_tokens=40) as load:
        _flowing(load, 3)
        world.kubectl("-n", "demo", "scale", "inferenceservice/streams", "--replicas=1")
        world.rolled("streams", 1)
        _flowing(load, 3)
    measured("streams while their worker drained", str(load.account()))
    assert not load.account().troubles
