"""The one list of what the operator watches and who reconciles it. Constructs and connects; decides nothing.

Reading order: informers, then reconcilers (each gets the informers it reads), then who wakes whom.
"""

from __future__ import annotations

from controllers.apply import Applier
from controllers.inference_service.admin_ports import HttpAdminPorts
from controllers.inference_service.caches import SERVICE_INDEX, TENANT_INDEX, own_caches
from controllers.inference_service.wiring import wire_inference_service
from controllers.model.wiring import wire_model
from controllers.runtime.interface import Assembly, Marker
from controllers.settings import Settings
from controllers.sla.reconciler import SlaReconciler
from controllers.tenant.wiring import wire_tenant
from controllers.wakes import by_namespace, of_service, wake
from kube.api import Api
from kube.events import Recorder
from kube.informer import Informer, lean
from kube.resources import INFERENCE_SERVICES, MODELS, SLAS, TENANTS


def build(client: Api, settings: Settings, queue: Marker, recorder: Recorder) -> Assembly:
    """Everything connected, nothing started."""
    # What people declare.
    services = Informer(client, INFERENCE_SERVICES, keep=lean, index=SERVICE_INDEX)
    models = Informer(client, MODELS, keep=lean, index={"by_namespace": by_namespace})
    slas = Informer(client, SLAS, keep=lean)
    tenants = Informer(client, TENANTS, keep=lean, index=TENANT_INDEX)
    owned = {one.resource.kind: one for one in (services, models, slas, tenants)}

    # What we write and what the cluster makes of it: informers of children go here.
    around_services = own_caches(
        client,
        system_namespace=settings.namespace,
        gateway_admin_service=settings.gateway_admin_service,
        services=services,
        models=models,
        slas=slas,
        tenants=tenants,
    )

    # Who reconciles what: reconcilers go here, each with `applier`, `recorder` and the informers it reads.
    applier = Applier(client)
    of_services = wire_inference_service(client, settings, queue, recorder, applier, around_services, HttpAdminPorts())
    of_models = wire_model(client, settings, queue, recorder, applier, services=services, models=models)
    of_slas = SlaReconciler(slas, services, applier, recorder)
    of_tenants = wire_tenant(client, settings, queue, recorder, applier, services=services, tenants=tenants)

    # Who wakes whom: `child.on_change(...)` lines that mark owners go here. A declared object wakes itself already.
    wake(services, queue, of_service(tenants))

    return Assembly(
        owned=owned,
        children=(*around_services.own, *of_models.caches, *of_tenants.caches),
        reconcilers=(of_services.reconciler, of_models.reconciler, of_slas, of_tenants.reconciler),
        background=(*of_services.background, *of_tenants.background),
    )
