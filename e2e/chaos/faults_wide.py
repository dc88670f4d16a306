"""Faults of what was asked for, and of what is around the workers. Each is a context, as those of workers are."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from e2e.chaos import host
from e2e.chaos.faults import Inject
from e2e.chaos.ground import N_WORKERS, OTHER_MODEL
from e2e.chaos.host import NotThere
from e2e.chaos.scene import Scene
from e2e.chaos.signs import By, Sign
from e2e.install import SYSTEM

OPERATOR: Final = "foretide-operator"
OPERATORS_LIMIT_S: Final = 120.0
OUTAGE_S: Final = 15.0
FORECAST_LIMIT_S: Final = 150.0
_PREDICTIVE: Final = {"min": N_WORKERS, "max": 3, "policy": "predictive", "tokensPerSecond": 200}


# --- what was asked for ---------------------------------------------------------------------------------------------
@asynccontextmanager
async def wrong_outputs(scene: Scene) -> AsyncIterator[None]:
    """Another seed of the same model: as fast and as healthy, and every answer another."""
    engine = {"maxModelLen": 1000 - scene.fault.number, "kvCache": "32Mi"}
    scene.shows = scene.says(By.STATUS, "RolledBack")
    async with _bad_edit(scene, "a revision with other weights", model=OTHER_MODEL, engine=engine):
        yield


@asynccontextmanager
async def bad_revision(scene: Scene) -> AsyncIterator[None]:
    scene.shows = scene.says(By.STATUS, "Unschedulable", "WorkerCrashing", "WorkerNotStarted", "RolledBack")
    number = scene.fault.number
    unplaced: dict[str, Any] = {"nodeSelector": {"no-such": f"node-{number}"}}
    refused: dict[str, Any] = {"engine": {"maxModelLen": 1024, "kvCache": f"{64 + number}Ki"}}
    what, changes = scene.chance.choice(
        [("a revision that no node takes", unplaced), ("a revision whose KV cache is too small to start", refused)]
    )
    async with _bad_edit(scene, what, **changes):
        yield


@asynccontextmanager
async def corrupted_file(scene: Scene) -> AsyncIterator[None]:
    name = f"flipped-{scene.fault.number}"
    model = await asyncio.to_thread(scene.ground.files.corrupted, name)
    scene.shows = scene.says(By.STATUS, f"Model {name} Stalled")

    def refused() -> bool:
        look, found = scene.look(), scene.onlooker.models.get("chaos", name)
        said = look is not None and any(reason == "ModelNotReady" for _, reason in look.conditions.values())
        return said and found is not None and found.stalled

    scene.gone = refused
    scene.struck(name)
    try:
        await asyncio.to_thread(scene.ground.kubectl.apply, model)
        await scene.edit(model=name)
        yield
    finally:
        await scene.edit()
        await scene.kubectl("-n", "chaos", "delete", "model", name, "--wait=false", "--ignore-not-found")


@asynccontextmanager
async def _bad_edit(scene: Scene, what: str, **changes: Any) -> AsyncIterator[None]:
    """An edit that must be refused: rolled back, with the revision of before still the one that serves."""
    before = scene.look()
    stable = before.stable if before else ""

    def refused() -> bool:
        look = scene.look()
        return look is not None and look.phase == "RolledBack" and look.stable == stable != ""

    scene.gone = refused
    scene.struck(what)
    try:
        await scene.edit(**changes)
        yield
    finally:
        await scene.edit()


# --- what is around the workers -------------------------------------------------------------------------------------
@asynccontextmanager
async def apiserver_restart(scene: Scene) -> AsyncIterator[None]:
    how = scene.chance.choice([signal.SIGTERM, signal.SIGKILL])
    scene.shows = _nothing
    scene.struck(f"kube-apiserver, {how.name}")
    await asyncio.to_thread(scene.ground.cluster.restart_apiserver, how)
    scene.released()
    async with _an_edit_is_done(scene):
        yield


@asynccontextmanager
async def operator_kill(scene: Scene) -> AsyncIterator[None]:
    await _fresh_operators(scene)
    leader = scene.onlooker.leader()
    pod = next((one for one in scene.onlooker.system_pods(OPERATOR) if one["metadata"]["name"] == leader), None)
    if pod is None:
        raise NotThere("There is no leading operator to kill.")
    container = str(pod["status"]["containerStatuses"][0]["containerID"]).rpartition("://")[2]
    pids = await asyncio.to_thread(
        scene.ground.host.main_pids, pod["spec"]["nodeName"], pod["metadata"]["uid"], container
    )
    scene.shows = scene.says(By.LEADER, "leads")
    scene.struck(leader)
    host.send(pids, signal.SIGKILL)
    async with _an_edit_is_done(scene):
        yield


async def _fresh_operators(scene: Scene) -> None:
    """None that was restarted before: the kubelet lets a container wait longer with each restart."""
    for pod in scene.onlooker.system_pods(OPERATOR):
        if any(one.get("restartCount") for one in pod["status"].get("containerStatuses") or ()):
            await scene.kubectl("-n", SYSTEM, "delete", "pod", pod["metadata"]["name"])

    def stand() -> bool:
        pods = scene.onlooker.system_pods(OPERATOR)
        return all(map(_ready, pods)) and scene.onlooker.leader() in {one["metadata"]["name"] for one in pods}

    await scene.holding(OPERATORS_LIMIT_S, stand)


@asynccontextmanager
async def prometheus_outage(scene: Scene) -> AsyncIterator[None]:
    """The service follows a forecast meanwhile. What it asks for must stay as it is."""

    def trust() -> str:
        look = scene.look()
        return "" if look is None else look.conditions.get("ForecastTrusted", ("", ""))[1]

    await scene.edit(scaling=_PREDICTIVE)
    try:
        await scene.holding(FORECAST_LIMIT_S, lambda: trust() == "Calibrated")
        if trust() != "Calibrated":
            raise NotThere(f"{scene.service} has no forecast that could lose its history: {trust()!r}.")
        scene.shows = scene.says(By.STATUS, "HistoryUnavailable")
        scene.gone = lambda: trust() == "Calibrated"
        scene.struck("Prometheus")
        await asyncio.to_thread(scene.ground.prometheus.stop)
        try:
            await scene.holding(OUTAGE_S)
        finally:
            scene.ground.prometheus.start()
        scene.released()
        yield
    finally:
        await scene.edit()


@asynccontextmanager
async def _an_edit_is_done(scene: Scene) -> AsyncIterator[None]:
    """A harmless edit, right after the blow, and taken back at the end: whoever reconciles must have seen it."""
    rollout = scene.ground.service(scene.service)["spec"]["rollout"]
    before = scene.look()
    seen = before.generation if before else 0

    def done() -> bool:
        look = scene.look()
        whole = all(_ready(pod) for pod in scene.onlooker.system_pods(OPERATOR))
        return look is not None and look.generation > seen and look.observed == look.generation and whole

    scene.gone = done
    try:
        await scene.edit(rollout=rollout | {"revisionHistoryLimit": 2})
        yield
    finally:
        await scene.edit()


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _nothing(sign: Sign) -> bool:
    """Nobody announces that an API server was away; what counts is what became of the work."""
    return False


OF_THE_REST: Final[dict[str, Inject]] = {
    "wrong outputs": wrong_outputs,
    "bad revision": bad_revision,
    "corrupted model file": corrupted_file,
    "API server restart": apiserver_restart,
    "operator kill": operator_kill,
    "Prometheus outage": prometheus_outage,
}
