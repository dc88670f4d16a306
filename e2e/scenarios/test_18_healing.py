"""A revision that can only crash gives way to the one that stood, while clients ask; and the command says why."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from cli.diagnose_text import Picture, plain
from cli.fleet import Service
from controllers.plans.healing.objects import view_of
from e2e.scenarios.world import World, until

Measured = Callable[[str, str], None]

NAME = "healed"


def test_a_revision_that_can_only_crash_is_rolled_back_without_a_lost_request(world: World, measured: Measured) -> None:
    with world.serving(NAME) as wanted, world.load(NAME) as load:
        good = world.rolled(NAME, 1)
        until(lambda: (world.status(NAME).get("health") or {}).get("lastGood") == good, "it is known to be good")
        uids = {pod["metadata"]["uid"] for pod in world.pods(NAME)}
        wanted["spec"]["engine"] |= {"maxModelLen": 9_000_000}
        world.kubectl.apply(wanted)
        began = time.monotonic()
        until(lambda: _stalled(world) == "RolledBack", "it is rolled back", 180)
        measured("an edit that can only crash → rolled back", f"{time.monotonic() - began:.0f} s")
        until(lambda: {pod["metadata"]["uid"] for pod in world.pods(NAME)} == uids, "only the old worker is left")
        _the_command_says_why(world, good)
        goal = load.answered + 5
        until(lambda: load.answered >= goal, "answers by the revision that stood")
        wanted["spec"]["engine"] |= {"maxModelLen": 512}
        world.kubectl.apply(wanted)
        assert world.rolled(NAME, 1) != good
        until(lambda: not world.condition(f"inferenceservice/{NAME}", "Degraded"), "nothing is wrong any more")
    measured("while a bad revision came and went", str(load.account()))
    assert not load.account().troubles


def _stalled(world: World) -> str:
    return str(world.condition(f"inferenceservice/{NAME}", "Stalled").get("reason", ""))


def _the_command_says_why(world: World, good: str) -> None:
    """What `kubectl foretide diagnose` prints, from the same objects."""
    service = world.get(f"inferenceservice/{NAME}") or {}
    view = view_of(service, world.pods(NAME), world.kubectl.items("nodes"))
    said = plain(Picture(Service(service), view, ()))
    (finding,) = said["findings"]
    assert finding["cause"] == "BadRevision", json.dumps(said)
    assert finding["next"].startswith(f"Revision {good} serves instead of ")
    assert [one["remedy"] for one in said["actions"]] == ["RollBack"]
