"""`python -m benchmarks.mig.scale`: the operator and the GPU pools on hundreds of nodes that are not there.

API server, controller manager and kube-scheduler are real, and so are both processes of ours; nodes, their MIG managers
and their drivers are stand-ins (`e2e/fake_nodes.py`). One half of the nodes gives devices by the device plugin, the
other by ResourceClaims. `--quick` takes ten nodes and writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.control_plane.api import Writes, create_all, each, install_crds, since, writes_so_far
from benchmarks.control_plane.subject import ours
from benchmarks.mig.workers import NAMESPACE, POOLS, SYSTEM, Scale, declarations, misplaced
from benchmarks.report import REPOSITORY, Better, Report, Row, Words, publish
from controllers.plans.mig.demand import Want
from controllers.plans.mig.pool import PoolSnapshot, plan_pool
from controllers.plans.mig.records import NodeView
from crds.gpu_pool import GPUPoolSpec
from e2e.cluster.controlplane import ControlPlane, Settings
from e2e.cluster.process import Process
from e2e.cluster.progress import Progress
from e2e.fake_nodes import BY_CLAIMS, MANAGER_NAMESPACE, FakeNodes, claim_with_volume, device_classes, gpu_node
from e2e.ports import free_port
from kube.client import Client
from kube.connection import Connection
from kube.resources import GPU_POOLS, INFERENCE_SERVICES, NODES, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES, Object

Seen = dict[str, list[Object]]
Question = Callable[[Seen], str | None]
LOOK_S: Final = 0.5
ENDS_ALLOWED: Final = 5
WORDS = Words(
    title="GPU pools on fake nodes, with Kubernetes' own scheduler",
    command="make bench-mig-scale",
    about=[
        "Two GPUPools are declared at once with their services: the nodes of one give devices by the device plugin,"
        " those of the other by ResourceClaims; all GPUs are whole at first. The operator makes the workers, the pools"
        " cut the nodes, and kube-scheduler places the pods. API server, controller manager, scheduler and both"
        " processes of Foretide are real. Nodes are objects without machines; a stand-in cuts them at once and calls"
        " bound pods running.",
        "*Misplaced* counts workers that are missing, not on a node of their pool, or without a slice of their profile"
        " that is theirs alone; for claims, as the scheduler allocated them. *Quiet* is a stretch of 15 s in which"
        " nothing changes; leases are renewed and Events, which are told late and slowly, may still come.",
    ],
    notes=[
        "Times hold the stand-ins' and Kubernetes' own work on the same two CPUs, and other work on the machine. They"
        " are there to be compared with each other.",
    ],
)


class NotAsPlanned(Exception):
    """The run came to no good end; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Of one run."""

    plan_cpu_s: float
    """Of the first plan of one pool, from nothing known."""
    cut_s: float
    """From the start of both processes until both pools are as planned."""
    placed_s: float
    """... until every worker is bound."""
    ready_s: float
    """... until every service is ready."""
    cut_nodes: int
    quiet_writes: Writes
    """In a stretch of time in which nothing changed."""
    wrong: tuple[str, ...]


async def run(scale: Scale, say: Progress) -> Findings:
    """Everything, on a control plane of its own that is gone afterwards."""
    settings = Settings(controller_manager=True, scheduler=True, node_lifecycle=False)
    with ControlPlane(settings=settings) as plane:
        connection = Connection.from_environment(plane.kubeconfig)
        async with Client(connection) as client, FakeNodes(client).running() as fake:
            with say.step(f"Declaring {scale.nodes} nodes and {scale.replicas} workers"):
                await _declare(client, fake, scale)
            return await _measure(client, connection, plane, fake, scale, say)


async def _declare(client: Client, fake: FakeNodes, scale: Scale) -> None:
    await install_crds(client)
    for name in (NAMESPACE, SYSTEM, MANAGER_NAMESPACE):
        await create_all(client, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}])
    await create_all(client, [*device_classes(), *claim_with_volume(NAMESPACE, "weights")])
    nodes = [(name, _labels(pool)) for pool in POOLS for name in scale.nodes_of(pool)]
    await each(nodes, lambda one: fake.add(one[0], scale.gpus, one[1]))
    await create_all(client, declarations(scale))


def _labels(pool: str) -> dict[str, str]:
    return {"pool": pool, **(BY_CLAIMS if POOLS[pool] == "resourceClaims" else {})}


async def _measure(
    client: Client, connection: Connection, plane: ControlPlane, fake: FakeNodes, scale: Scale, say: Progress
) -> Findings:
    with tempfile.TemporaryDirectory(prefix="foretide-fake-nodes-") as folder:
        processes = [_process(name, flags, plane, Path(folder)) for name, flags in _PROCESSES.items()]
        try:
            began_s = time.monotonic()
            waiting = _Waiting(client, fake, processes, began_s + scale.limit_s)
            with say.step("Cutting, scheduling, starting"):
                cut_s, placed_s, ready_s = await waiting.until(
                    _pools_as_planned, partial(_placed, scale), _services_ready
                )
            with say.step(f"Nothing happens for {scale.quiet_s:g} s"):
                quiet = await _quiet(connection, waiting, scale)
            wrong = misplaced(
                scale,
                await client.list(NODES),
                [one for one in await client.list(PODS, NAMESPACE) if not one["metadata"].get("deletionTimestamp")],
                await client.list(RESOURCE_SLICES),
                await client.list(RESOURCE_CLAIMS, NAMESPACE),
            )
        finally:
            for one in processes:
                one.stop()
    return Findings(
        plan_cpu_s=plan_cpu_s(scale),
        cut_s=cut_s - began_s,
        placed_s=placed_s - began_s,
        ready_s=ready_s - began_s,
        cut_nodes=len(fake.cuts),
        quiet_writes=quiet,
        wrong=(*wrong, *fake.failures),
    )


_PROCESSES: Final = {"operator": (), "gpu-pools": ("--manage=gpu-pools", "--lease-name=foretide-gpu-pools")}


class _Life:
    """One process of ours. It is started again when it ends, as one does that lost its lease: a cluster would, too."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self._process, self._command, self._ends = Process(name, folder, leash=True), command, -1
        self.keep()

    def keep(self) -> None:
        """Started unless it runs."""
        if self._process.pid() is not None:
            return
        self._ends += 1
        if self._ends > ENDS_ALLOWED:
            self._process.check()
        self._process.start(self._command, {"PYTHONPATH": str(REPOSITORY)})

    def stop(self) -> None:
        self._process.stop()

    def tail(self) -> str:
        """The end of its log."""
        return self._process.tail()


def _process(name: str, flags: Sequence[str], plane: ControlPlane, folder: Path) -> _Life:
    config = folder / "operator.yaml"
    config.write_text("images: {worker_gpu: foretide/worker-gpu:none}\n", encoding="utf-8")
    command = ours().command(plane.kubeconfig, free_port())
    return _Life(name, [*command, *flags, f"--config={config}"], folder)


class _Waiting:
    """Looks at the API until something is so, and at the processes meanwhile."""

    def __init__(self, client: Client, fake: FakeNodes, processes: Sequence[_Life], deadline_s: float) -> None:
        self._client, self._fake, self._processes, self._deadline_s = client, fake, processes, deadline_s

    async def until(self, *questions: Question) -> list[float]:
        """When each was first answered with nothing, monotonic; a question says what is missing."""
        answered: dict[Question, float] = {}
        while len(answered) < len(questions):
            self.check()
            seen = {
                "pools": await self._client.list(GPU_POOLS),
                "services": await self._client.list(INFERENCE_SERVICES, NAMESPACE),
                "pods": await self._client.list(PODS, NAMESPACE),
            }
            for one in questions:
                missing = one(seen) if one not in answered else None
                if missing is None:
                    answered.setdefault(one, time.monotonic())
                elif time.monotonic() > self._deadline_s:
                    logs = "\n".join(each.tail() for each in self._processes)
                    raise NotAsPlanned(f"Not in time. {missing}\n{self._fake.failures[:5]}\n{logs}")
            await asyncio.sleep(LOOK_S)
        return [answered[one] for one in questions]

    def check(self) -> None:
        for one in self._processes:
            one.keep()


def _ready(one: Object) -> dict[str, str]:
    found = (one.get("status") or {}).get("conditions") or ()
    return next((each for each in found if each["type"] == "Ready"), {"status": "Unknown", "reason": "", "message": ""})


def _pools_as_planned(seen: Seen) -> str | None:
    for one in seen["pools"]:
        served, _, wanted = str((one.get("status") or {}).get("served", "0/")).partition("/")
        # Nothing is wanted of a pool that has not seen its services yet.
        if _ready(one)["reason"] != "AsPlanned" or served != wanted or served == "0":
            return f"GPUPool {one['metadata']['name']} serves {served}/{wanted}: {_ready(one)['message']}"
    return None


def _placed(scale: Scale, seen: Seen) -> str | None:
    bound = sum(bool(one["spec"].get("nodeName")) for one in seen["pods"])
    return None if bound >= scale.replicas else f"{bound} of {scale.replicas} are bound."


def _services_ready(seen: Seen) -> str | None:
    waiting = [one for one in seen["services"] if _ready(one)["status"] != "True"]
    return f"{waiting[0]['metadata']['name']}: {_ready(waiting[0])['message']}" if waiting else None


async def _quiet(connection: Connection, waiting: _Waiting, scale: Scale) -> Writes:
    """Writes to the API server in a stretch of time after the last one."""
    async with asyncio.timeout(scale.limit_s):
        before = await writes_so_far(connection)
        while True:
            await asyncio.sleep(scale.quiet_s / 3)
            waiting.check()
            now = await writes_so_far(connection)
            if now.objects == before.objects:
                break
            before = now
    await asyncio.sleep(scale.quiet_s)
    return since(before, await writes_so_far(connection))


def plan_cpu_s(scale: Scale) -> float:
    """Of one pool with half of the nodes, all whole, and half of the services."""
    pool = next(iter(POOLS))
    objects = [gpu_node(name, scale.gpus, _labels(pool)) for name in scale.nodes_of(pool)]
    status = {"allocatable": {"nvidia.com/gpu": str(scale.gpus)}, "conditions": [{"type": "Ready", "status": "True"}]}
    views = tuple(view for one in objects if (view := NodeView.of(one | {"status": status})) is not None)
    wants = tuple(
        Want(f"{NAMESPACE}/{name}", profile, count) for where, name, profile, count in scale.services() if where == pool
    )
    seen = PoolSnapshot(pool, 1, GPUPoolSpec(node_selector={"pool": pool}), views, (), wants)
    started_s = time.process_time()
    plan_pool(seen, time.time())
    return time.process_time() - started_s


def rows(scale: Scale, found: Findings) -> list[Row]:
    name = f"{scale.nodes} nodes × {scale.gpus} GPUs, {scale.replicas} workers"
    return [
        Row(name, "workers misplaced", "workers", len(found.wrong), goal=0),
        Row(name, "API writes when quiet, leases and Events apart", "writes", found.quiet_writes.objects, goal=0),
        Row(name, "CPU time of the first plan of a pool", "s", round(found.plan_cpu_s, 2), goal=10.0),
        Row(name, "nodes cut", "nodes", found.cut_nodes, better=Better.LOWER),
        Row(name, "from nothing to both pools cut as planned", "s", round(found.cut_s, 1)),
        Row(name, "from nothing to every worker placed", "s", round(found.placed_s, 1)),
        Row(name, "from nothing to every service ready", "s", round(found.ready_s, 1)),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.mig.scale", description=__doc__)
    parser.add_argument("--nodes", type=int, default=Scale().nodes, help="half of them in each pool")
    parser.add_argument("--workers", type=int, default=Scale().workers, help="of all services")
    parser.add_argument("--quick", action="store_true", help="10 nodes, 40 workers; writes nothing")
    options = parser.parse_args()
    if options.nodes < 2 or options.workers < 1:
        parser.error("--nodes must be at least 2, one for each pool, and --workers at least 1.")
    scale = QUICK if options.quick else Scale(nodes=options.nodes, workers=options.workers)
    try:
        found = asyncio.run(run(scale, Progress()))
    except NotAsPlanned as error:
        print(f"No results: {error}", file=sys.stderr)
        return 1
    for one in found.wrong[:20]:
        print(one, file=sys.stderr)
    print(f"Writes when quiet: {found.quiet_writes}", file=sys.stderr)
    for row in rows(scale, found):
        print(f"{row.metric}: {row.ours} {row.unit}", file=sys.stderr)
    if not options.quick:
        for path in publish(Report.of_now(rows(scale, found)), WORDS, "mig_scale"):
            print(path)
    return 1 if found.wrong else 0


QUICK: Final = Scale(nodes=10, workers=40, quiet_s=6.0, limit_s=300.0)


if __name__ == "__main__":
    sys.exit(main())
