"""The one list of what the operator watches and who reconciles it. Constructs and connects; decides nothing.

Reading order: informers, then reconcilers (each gets the informers it reads), then who wakes whom.
"""

from __future__ import annotations

from controllers.apply import Applier
from controllers.runtime.interface import Assembly, Marker
from controllers.settings import Settings
from kube.api import Api
from kube.events import Recorder
from kube.informer import Informer, lean
from kube.resources import INFERENCE_SERVICES, MODELS, SLAS, TENANTS


def build(client: Api, settings: Settings, queue: Marker, recorder: Recorder) -> Assembly:
    """Everything connected, nothing started."""
    # What people declare.
    services = Informer(client, INFERENCE_SERVICES, keep=lean)
    models = Informer(client, MODELS, keep=lean)
    slas = Informer(client, SLAS, keep=lean)
    tenants = Informer(client, TENANTS, keep=lean)
    owned = {one.resource.kind: one for one in (services, models, slas, tenants)}

    # What we write and what the cluster makes of it: informers of children go here.

    # Who reconciles what: reconcilers go here, each with `applier`, `recorder` and the informers it reads.
    _applier = Applier(client)

    # Who wakes whom: `child.on_change(...)` lines that mark owners go here. A declared object wakes itself already.

    return Assembly(owned=owned, children=(), reconcilers=())
