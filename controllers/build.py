"""The one list of what the operator watches and who reconciles it. Constructs and connects; decides nothing.

Reading order: informers, then reconcilers (each gets the informers it reads), then who wakes whom.
"""

from __future__ import annotations

import socket

from controllers.alerting.wiring import wire_alerting
from controllers.alerting.wishes import WishBoard
from controllers.apply import Applier
from controllers.capacity_forecast.capacities import remember_capacities
from controllers.capacity_forecast.pages import decisions_page
from controllers.capacity_forecast.reconciler import CapacityForecastReconciler
from controllers.capacity_forecast.wiring import wire_insight
from controllers.dashboard.caches import Caches as DashboardCaches
from controllers.dashboard.past import Remembered
from controllers.dashboard.wiring import wire_dashboard
from controllers.history.scraper import Scraper
from controllers.inference_service.admin_ports import HttpAdminPorts
from controllers.inference_service.caches import SERVICE_INDEX, TENANT_INDEX, own_caches
from controllers.inference_service.gateways import ScrapedGateways
from controllers.inference_service.quality import StoredMemory
from controllers.inference_service.wiring import wire_inference_service
from controllers.leader_label import keep_marked
from controllers.model.wiring import wire_model
from controllers.plans.mig.offers import pool_specs
from controllers.plans.mig.prices import PricedPool, prices_of
from controllers.reading import readable
from controllers.runtime.interface import Assembly, Background, Marker
from controllers.settings import Settings
from controllers.sla.reconciler import SlaReconciler
from controllers.tenant.wiring import wire_tenant
from controllers.wakes import by_namespace, forecast_of, of_service, wake
from crds.gpu_pool import SharingStatus
from forecasting.cost import Prices
from kube.api import Api
from kube.events import Recorder
from kube.informer import Informer, lean
from kube.resources import (
    ALERT_POLICIES,
    CAPACITY_FORECASTS,
    GPU_POOLS,
    INFERENCE_SERVICES,
    MODELS,
    SLAS,
    TENANTS,
    Object,
)


def build(client: Api, settings: Settings, queue: Marker, recorder: Recorder) -> Assembly:
    """Everything connected, nothing started."""
    # What people declare.
    services = Informer(client, INFERENCE_SERVICES, keep=readable, index=SERVICE_INDEX)
    models = Informer(client, MODELS, keep=readable, index={"by_namespace": by_namespace})
    slas = Informer(client, SLAS, keep=readable)
    tenants = Informer(client, TENANTS, keep=readable, index=TENANT_INDEX)
    forecasts = Informer(client, CAPACITY_FORECASTS, keep=lean)
    pools = Informer(client, GPU_POOLS, keep=lean)
    policies = Informer(client, ALERT_POLICIES, keep=lean, index={"by_namespace": by_namespace})
    owned = {one.resource.kind: one for one in (services, models, slas, tenants, forecasts, policies)}

    # What we write and what the cluster makes of it: informers of children go here.
    around_services = own_caches(
        client,
        system_namespace=settings.namespace,
        gateway_admin_service=settings.gateway_admin_service,
        services=services,
        models=models,
        slas=slas,
        tenants=tenants,
        pools=pools,
        with_routes=bool(settings.gateway_api.parents),
    )

    # Who reconciles what: reconcilers go here, each with `applier`, `recorder` and the informers it reads.
    applier = Applier(client)
    insight = wire_insight(settings, queue, services, models)
    wishes = WishBoard(queue.add)
    of_services = wire_inference_service(
        client, settings, queue, recorder, applier, around_services, HttpAdminPorts(), insight, insight.source,
        memory=StoredMemory(insight.store), alert_wishes=wishes.known,
    )  # fmt: skip
    capacities = of_services.loads.capacities
    of_forecasts = CapacityForecastReconciler(
        services,
        models,
        slas,
        forecasts,
        insight.board,
        insight.cold_starts,
        capacities,
        applier,
        lambda spec: prices_of(spec, priced_pools(pools), Prices(**settings.prices.model_dump())),
        of_services.reconciler.limits,
    )
    of_models = wire_model(
        client,
        settings,
        queue,
        recorder,
        applier,
        services=services,
        models=models,
        measured=of_services.profiles.measured,
    )
    of_slas = SlaReconciler(slas, services, applier, recorder)
    of_tenants = wire_tenant(client, settings, queue, recorder, applier, services=services, tenants=tenants)

    of_alerts = wire_alerting(
        client,
        settings,
        queue,
        recorder,
        applier,
        policies=policies,
        around_services=around_services,
        store=insight.store,
        source=insight.source,
        wishes=wishes,
    )

    # Who wakes whom: `child.on_change(...)` lines that mark owners go here. A declared object wakes itself already.
    wake(services, queue, of_service(tenants))
    wake(services, queue, forecast_of)
    around_services.pods.on_change(insight.cold_starts.observe)

    # Who shows it to people.
    shown = DashboardCaches(services, forecasts, slas, tenants, pools, policies)
    dashboard = wire_dashboard(client, settings, shown, Remembered(insight.source, insight.decisions))

    # What watches the load itself, in standbys too.
    scraper = Scraper(
        ScrapedGateways(around_services, HttpAdminPorts()),
        insight.store,
        settings.history.scrape_period_s,
        hears=insight.goodput.hear,
    )

    return Assembly(
        owned=owned,
        children=(pools, *around_services.own, *of_models.caches, *of_tenants.caches),
        reconcilers=(
            of_services.reconciler,
            of_models.reconciler,
            of_slas,
            of_tenants.reconciler,
            of_forecasts,
            of_alerts.reconciler,
        ),
        background=(
            *of_services.background,
            *of_tenants.background,
            *insight.background,
            *dashboard,
            *of_alerts.background,
            # A pod's host name is its name.
            Background("the leader's label", lambda: keep_marked(client, settings.namespace, socket.gethostname())),
            Background("the capacities", lambda: remember_capacities(insight.store, capacities)),
        ),
        always=(Background("the history", scraper.run),),
        pages=(decisions_page(insight.decisions),),
        hooks=of_alerts.hooks,
        collectors=(of_services.metrics, of_services.healings, of_alerts.metrics),
    )


def priced_pools(pools: Informer[Object]) -> list[PricedPool]:
    """Every GPUPool that can be read, as cost plans see it."""
    specs = pool_specs(pools.items())
    return [
        PricedPool(
            spec, tuple(SharingStatus.model_validate(each) for each in (one.get("status") or {}).get("sharing") or ())
        )
        for one in pools.items()
        if (spec := specs.get(one["metadata"]["name"])) is not None
    ]
