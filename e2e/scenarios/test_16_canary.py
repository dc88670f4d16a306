"""A revision that is as good is promoted, though the operator dies in between; three bad ones never replace it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from e2e.cluster import layout
from e2e.cluster.cluster import Cluster
from e2e.install import SYSTEM, resource
from e2e.load import Load
from e2e.scenarios.world import MODEL, Object, World, until

Measured = Callable[[str, str], None]

NAME = "canary"
ROLLOUT = {
    "strategy": "canary",
    "steps": [{"weight": 30, "duration": "2s"}, {"weight": 50, "duration": "2s"}],
    # Two workers share two cores with everything else here: only a revision that is much slower may count as slower.
    "analysis": {"confidence": "95%", "tolerance": 40, "margin": 200, "errorMargin": "20%", "minRequests": 60},
    "guardrails": {"readyTimeout": "60s"},
    "outputs": {"prompts": ["The capital of France is", "One, two, three, four,"], "maxTokens": 8},
}

LATE = {"batching": "dynamic", "minWait": "2s", "maxWait": "3s"}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """The scenario's own report is enough."""


@contextmanager
def _spoiled_copy(checkpoint: Path, folder: Path) -> Iterator[str]:
    """URL of the model with a third of its weights set to zero: it loads, and talks nonsense."""
    whole = bytearray(checkpoint.read_bytes())
    begin, end = len(whole) * 4 // 10, len(whole) * 7 // 10
    whole[begin:end] = bytes(end - begin)
    (folder / "spoiled.gguf").write_bytes(whole)
    server = ThreadingHTTPServer((layout.HOST_ADDRESS, 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{layout.HOST_ADDRESS}:{server.server_address[1]}/spoiled.gguf"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _model(world: World, url: str) -> Iterator[None]:
    world.kubectl.apply(resource("Model", "spoiled", "demo", source=url))
    try:
        yield
    finally:
        world.kubectl("-n", "demo", "delete", "model", "spoiled", "--wait=false")


def rollout(world: World) -> Object:
    found: Object = world.status(NAME).get("rollout") or {}
    return found


def _try(world: World, wanted: Object, **changes: object) -> str:
    """Applies an edit; the revision that is tried, which is another than the one that serves."""
    before = world.status(NAME).get("currentRevision")
    wanted["spec"] |= changes
    world.kubectl.apply(wanted)

    def tried() -> str | None:
        seen = rollout(world)
        return seen.get("candidate") if seen.get("candidate") not in (None, before, seen.get("stable")) else None

    return until(tried, "a new revision is tried", 60) or ""


def _refused(world: World, candidate: str) -> Object:
    """Waits until it was rolled back and is gone; the record of it."""
    until(lambda: rollout(world).get("phase") == "RolledBack", f"{candidate} rolled back", 120)
    until(lambda: "traffic" not in world.status(NAME), "no split is left", 60)
    record: Object = rollout(world)["history"][0]
    assert (record["revision"], record["outcome"]) == (candidate, "RolledBack")
    return record


def test_good_revisions_are_promoted_and_bad_ones_rolled_back_under_load(
    world: World, own_cluster: Cluster | None, checkpoint: Path, tmp_path: Path, measured: Measured
) -> None:
    if own_cluster is None:
        pytest.skip("pods of this cluster do not reach this machine")
    with (
        world.serving(NAME, replicas=1, rollout=ROLLOUT) as wanted,
        _spoiled_copy(checkpoint, tmp_path) as url,
        _model(world, url),
        world.load(NAME, clients=6, stream=True) as load,
    ):
        good = _a_good_one_is_promoted(world, wanted, load, measured)
        _one_that_no_node_takes(world, wanted, measured)
        _a_slow_one(world, wanted, measured)
        world.wait("model/spoiled", "Ready", 120)
        _one_that_talks_nonsense(world, wanted, load, measured)
        assert rollout(world)["stable"] == good
        assert [one["outcome"] for one in rollout(world)["history"]] == ["RolledBack"] * 3 + ["Promoted"]
    measured("canaries under load", str(load.account()))
    assert not load.account().troubles


def _a_good_one_is_promoted(world: World, wanted: Object, load: Load, measured: Measured) -> str:
    started = time.monotonic()
    good = _try(world, wanted, engine={"maxModelLen": 896, "kvCache": "128Mi"})
    until(lambda: rollout(world).get("verdicts"), "something was measured", 90)
    world.kill(world.leader(), SYSTEM)
    until(lambda: rollout(world).get("stable") == good, "the good revision is promoted", 180)
    until(lambda: "traffic" not in world.status(NAME), "no split is left", 60)
    measured("good revision: edit → promoted, operator killed in between", f"{time.monotonic() - started:.1f} s")
    assert good in load.account().revisions
    return good


def _one_that_no_node_takes(world: World, wanted: Object, measured: Measured) -> None:
    started = time.monotonic()
    record = _refused(world, _try(world, wanted, nodeSelector={"no-such": "node"}))
    measured("revision that is never ready: edit → rolled back", f"{time.monotonic() - started:.1f} s")
    assert record["reason"] == "NeverReady"
    wanted["spec"].pop("nodeSelector")


def _a_slow_one(world: World, wanted: Object, measured: Measured) -> None:
    """It lets every request wait, whatever else the machine does."""
    started = time.monotonic()
    record = _refused(world, _try(world, wanted, engine=wanted["spec"]["engine"] | {"scheduling": LATE}))
    measured("slow revision: edit → rolled back", f"{time.monotonic() - started:.1f} s, {record['message']}")
    assert record["reason"] == "CandidateWorse"
    assert "ttft" in record["message"]


def _one_that_talks_nonsense(world: World, wanted: Object, load: Load, measured: Measured) -> None:
    started = time.monotonic()
    wanted["spec"]["engine"].pop("scheduling")
    bad = _try(world, wanted, model="spoiled")
    record = _refused(world, bad)
    measured("revision with spoiled weights: edit → rolled back", f"{time.monotonic() - started:.1f} s")
    assert record["reason"] == "OutputsDiffer"
    assert bad not in load.account().revisions
    wanted["spec"]["model"] = MODEL
