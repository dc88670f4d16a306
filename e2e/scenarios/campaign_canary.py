"""Bad revisions under load, each rolled back for its own reason: slow, nonsense, nothing but errors, some errors.

No part of CI (`make e2e-canaries` runs it): what is slow is told from what is not by latencies, and these belong to
whatever else the machine does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from e2e.cluster import layout
from e2e.cluster.cluster import Cluster
from e2e.cluster.images import PACED_WORKER
from e2e.install import install, resource
from e2e.load import Load
from e2e.scenarios.canaries import NAME, refused, rollout, tried
from e2e.scenarios.world import MODEL, Object, World
from e2e.target import Target

Measured = Callable[[str, str], None]

ROLLOUT: Object = {
    "strategy": "canary",
    "steps": [{"weight": 30, "duration": "2s"}, {"weight": 50, "duration": "2s"}],
    "analysis": {"confidence": "95%", "tolerance": 40, "margin": 100, "errorMargin": "20%", "minRequests": 60},
    "guardrails": {"readyTimeout": "90s"},
    "outputs": {"prompts": ["The capital of France is", "One, two, three, four,"], "maxTokens": 8},
}
LATE = {"batching": "dynamic", "minWait": "6s", "maxWait": "8s"}
"""Every request waits for six seconds at least, whatever else the machine does."""
FAILING = {"maxBatch": 63}
"""What the stand-in for a worker takes for an order to fail."""
FAILING_PARTLY = {"maxBatch": 62}
"""The same for three of ten requests."""
BY_ERRORS = {key: value for key, value in ROLLOUT.items() if key != "outputs"} | {
    # The sequential test alone: the guardrail would speak at about the same time, and times are another campaign's.
    "analysis": {**ROLLOUT["analysis"], "metrics": ["errors"]},
    "guardrails": {**ROLLOUT["guardrails"], "errors": "80%"},
}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """The campaign's own report is enough."""


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


def test_bad_revisions_are_rolled_back_under_load(
    world: World, own_cluster: Cluster | None, checkpoint: Path, tmp_path: Path, measured: Measured
) -> None:
    assert own_cluster is not None, "this campaign needs a cluster of its own: unset KUBECONFIG"
    with (
        world.serving(NAME, replicas=1, rollout=ROLLOUT) as wanted,
        _spoiled_copy(checkpoint, tmp_path) as url,
        _model(world, url),
        world.load(NAME, clients=6, stream=True) as load,
    ):
        good = world.status(NAME)["currentRevision"]
        _a_slow_one(world, wanted, measured)
        world.wait("model/spoiled", "Ready", 120)
        _one_that_talks_nonsense(world, wanted, load, measured)
        assert rollout(world)["stable"] == good
        assert [one["outcome"] for one in rollout(world)["history"]] == ["RolledBack"] * 2
    measured("bad canaries under load", str(load.account()))
    assert not load.account().troubles


def _a_slow_one(world: World, wanted: Object, measured: Measured) -> None:
    started = time.monotonic()
    engine = wanted["spec"].get("engine") or {}
    record = refused(world, tried(world, wanted, engine=engine | {"scheduling": LATE}))
    measured("slow revision: edit → rolled back", f"{time.monotonic() - started:.1f} s, {record['message']}")
    assert record["reason"] == "CandidateWorse"


def _one_that_talks_nonsense(world: World, wanted: Object, load: Load, measured: Measured) -> None:
    started = time.monotonic()
    wanted["spec"]["engine"].pop("scheduling")
    bad = tried(world, wanted, model="spoiled")
    record = refused(world, bad)
    measured("revision with spoiled weights: edit → rolled back", f"{time.monotonic() - started:.1f} s")
    assert record["reason"] == "OutputsDiffer"
    assert bad not in load.account().revisions
    wanted["spec"]["model"] = MODEL


@contextmanager
def _workers_that_can_fail(target: Target) -> Iterator[None]:
    stand_in = f"foretide/{PACED_WORKER}:{target.chart_values['image']['tag']}"
    install(target.kubectl, target.chart_values | {"workers": {"cpu": {"image": stand_in}}})
    try:
        yield
    finally:
        install(target.kubectl, target.chart_values)


def test_revisions_whose_answers_are_errors_are_rolled_back_under_load(
    world: World, target: Target, own_cluster: Cluster | None, measured: Measured
) -> None:
    assert own_cluster is not None, "this campaign needs a cluster of its own: unset KUBECONFIG"
    with (
        _workers_that_can_fail(target),
        world.serving(NAME, replicas=1, rollout=BY_ERRORS) as wanted,
        world.load(NAME, clients=6, stream=True) as load,
    ):
        good = world.status(NAME)["currentRevision"]
        _one_that_answers_nothing(world, wanted, load, measured)
        _one_that_fails_partly(world, wanted, load, measured)
        assert rollout(world)["stable"] == good
        assert [one["outcome"] for one in rollout(world)["history"]] == ["RolledBack"] * 2
    measured("revisions of errors under load", str(load.account()))
    assert load.account().answered
    assert not load.account().troubles, "what a revision breaks another attempt mends"


def _one_that_answers_nothing(world: World, wanted: Object, load: Load, measured: Measured) -> None:
    started = time.monotonic()
    engine = wanted["spec"].get("engine") or {}
    bad = tried(world, wanted, engine=engine | {"scheduling": FAILING})
    record = refused(world, bad)
    measured("revision of errors: edit → rolled back", f"{time.monotonic() - started:.1f} s, {record['message']}")
    assert record["reason"] == "NeverAnswered", "its first question is asked before it gets a session"
    assert bad not in load.account().revisions


def _one_that_fails_partly(world: World, wanted: Object, load: Load, measured: Measured) -> None:
    started = time.monotonic()
    bad = tried(world, wanted, engine=wanted["spec"]["engine"] | {"scheduling": FAILING_PARTLY})
    record = refused(world, bad)
    measured(
        "revision with three errors of ten: edit → rolled back",
        f"{time.monotonic() - started:.1f} s, {record['message']}",
    )
    assert record["reason"] == "CandidateWorse"
    assert "errors" in record["message"]
    assert bad in load.account().revisions, "it had sessions, and answered most of them"
