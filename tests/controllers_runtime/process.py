"""The operator with a small reconciler, for tests that kill it: each Model's label `note` is copied into a ConfigMap.

Arguments: kubeconfig, port, identity, and `fail` to let a background loop end after the first reconcile.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controllers.apply import Applier
from controllers.runtime import logs
from controllers.runtime.interface import Assembly, Background, Key, Marker, Outcome, Page
from controllers.runtime.loop import Options, operate
from controllers.settings import Settings
from kube.api import Api
from kube.connection import Connection
from kube.events import Recorder
from kube.informer import Informer, lean
from kube.resources import CONFIG_MAPS, MODELS, Object


@dataclass
class Copier:
    """One ConfigMap per Model, of the same name."""

    models: Informer[Object]
    copies: Informer[Object]
    applier: Applier
    kind: str = MODELS.kind
    worked: asyncio.Event = field(default_factory=asyncio.Event)

    async def reconcile(self, key: Key) -> Outcome:
        model = self.models.get(key.namespace, key.name)
        if model is None:
            return Outcome()
        wanted = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"namespace": key.namespace, "name": key.name, "labels": {"copy": "yes"}},
            "data": {"note": model["metadata"]["labels"]["note"]},
        }
        await self.applier.ensure(wanted, self.copies.get(key.namespace, key.name))
        self.worked.set()
        return Outcome()


def build(client: Api, settings: Settings, queue: Marker, recorder: Recorder) -> Assembly:
    models = Informer(client, MODELS, keep=lean)
    copies = Informer(client, CONFIG_MAPS, keep=lean, label_selector="copy=yes")
    copies.on_change(lambda change: queue.add(Key(MODELS.kind, change.namespace, change.name)))
    copier = Copier(models, copies, Applier(client))

    async def ends() -> None:
        await copier.worked.wait()

    watched = asyncio.Event()

    async def watches() -> None:
        watched.set()
        await asyncio.Event().wait()

    async def tells(parts: Mapping[str, str], query: Mapping[str, str]) -> str:
        if "refuse" in query:
            raise ValueError("refuse is not allowed.")
        return f"{parts['name']} {watched.is_set()}"

    background = (Background("the loop that ends", ends),) if "fail" in sys.argv else ()
    return Assembly(
        owned={MODELS.kind: models},
        children=(copies,),
        reconcilers=(copier,),
        background=background,
        always=(Background("the watch", watches),),
        pages=(Page("/pages/{name}", "text/plain", tells),),
    )


def main(kubeconfig: str, port: str, identity: str, *_: Any) -> int:
    logs.configure("info")
    connection = Connection.from_environment(Path(kubeconfig))
    options = Options(identity=identity, host="127.0.0.1", port=int(port))
    return asyncio.run(operate(connection, Settings(namespace="default"), options, build))


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
