"""What a node would do, without one: its kubelet makes pods ready and lets them go, its agent has every Model."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any, Final

from crds.contract import LABEL_SERVICE
from kube.api import Api
from kube.errors import Conflict, KubeError, NotFound
from kube.informer import Change, Informer, lean
from kube.resources import MODELS, NODES, PODS, Object

NODE: Final = "node-1"
STARTED: Final = "2026-01-01T00:00:00Z"
_BYTES: Final = 98_000_000
COPY: Final[Object] = {
    "name": NODE,
    "state": "Cached",
    "bytes": _BYTES,
    "totalBytes": _BYTES,
    "digest": f"sha256:{'5a' * 32}",
    "format": "gguf",
}


class StandIn:
    """`run` while the campaign lasts."""

    def __init__(self, client: Api) -> None:
        self._client = client
        self._addresses = itertools.count(10)
        self._at_work: set[asyncio.Task[None]] = set()
        self.pods = Informer(client, PODS, keep=lean, label_selector=LABEL_SERVICE)
        self.models = Informer(client, MODELS, keep=lean)
        self.pods.on_change(self._pod_changed)
        self.models.on_change(self._model_changed)

    async def run(self) -> None:
        await asyncio.gather(self.pods.run(), self.models.run())

    def _pod_changed(self, change: Change[Object]) -> None:
        if change.new is not None:
            self._do(self._see_to_pod(change.new))

    def _model_changed(self, change: Change[Object]) -> None:
        if change.new is not None and not (change.new.get("status") or {}).get("nodes"):
            self._do(self._fetch(change.new))

    def _do(self, work: Any) -> None:
        async def patiently() -> None:
            with contextlib.suppress(NotFound, Conflict, KubeError):  # The next change, or the next look, tries again.
                await work

        task = asyncio.ensure_future(patiently())
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    async def _see_to_pod(self, pod: Object) -> None:
        meta, status = pod["metadata"], pod.get("status") or {}
        where = (PODS, meta["namespace"], meta["name"])
        if meta.get("deletionTimestamp"):
            await self._client.delete(*where, uid=meta["uid"], grace_period_s=0)
        elif not status.get("podIP"):
            await self._client.merge_patch(*where, {"status": self._ready()}, subresource="status")

    def _ready(self) -> dict[str, Any]:
        number = next(self._addresses)
        address = f"198.18.{number // 250 % 250}.{number % 250 + 1}"
        container = {"name": "worker", "image": "x", "imageID": "x", "ready": True, "restartCount": 0}
        return {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": STARTED,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": STARTED}],
            "containerStatuses": [container | {"state": {"running": {"startedAt": STARTED}}}],
        }

    async def _fetch(self, model: Object) -> None:
        meta = model["metadata"]
        manifest = {
            "apiVersion": MODELS.api_version,
            "kind": MODELS.kind,
            "metadata": {key: meta[key] for key in ("namespace", "name", "uid")},
            "status": {"nodes": [COPY]},
        }
        await self._client.apply(MODELS, manifest, field_manager=f"foretide-cache-{NODE}", subresource="status")


def node() -> Object:
    """The one that there is."""
    labels = {"kubernetes.io/os": "linux", "kubernetes.io/hostname": NODE}
    return {"apiVersion": NODES.api_version, "kind": NODES.kind, "metadata": {"name": NODE, "labels": labels}}
