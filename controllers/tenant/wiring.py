"""Puts this controller together: caches, reconciler, keyring, and who wakes a Tenant. Starts nothing."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from controllers.apply import Applier
from controllers.plans.keyring import KeySecret
from controllers.runtime.interface import Background, Marker
from controllers.settings import Settings
from controllers.tenant.keyring import KeyringWriter
from controllers.tenant.reading import Keys, Tenants
from controllers.tenant.reconciler import TenantReconciler
from controllers.wakes import by_tenant, of_key_secret, of_namespace, of_tenant, of_tenant_child, wake
from crds.contract import LABEL_API_KEY, LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY, SECRET_KEYRING
from kube.api import Api
from kube.events import Recorder
from kube.informer import Informer, lean
from kube.resources import NAMESPACES, NETWORK_POLICIES, RESOURCE_QUOTAS, SECRETS, Object, Resource


@dataclass(frozen=True, slots=True)
class Wired:
    """What the runtime runs of this controller."""

    reconciler: TenantReconciler
    keyring: KeyringWriter
    background: tuple[Background, ...]
    caches: tuple[Informer[Any], ...]


def wire_tenant(
    client: Api,
    settings: Settings,
    queue: Marker,
    recorder: Recorder,
    applier: Applier,
    *,
    services: Informer[Object],
    tenants: Informer[Object],
) -> Wired:
    """Everything connected. `services` and `tenants` have the index `by_namespace`."""
    system = settings.namespace
    namespaces = Informer(client, NAMESPACES, keep=_name_of)
    quotas, policies = _children(client, RESOURCE_QUOTAS), _children(client, NETWORK_POLICIES)
    key_secrets = Informer(client, SECRETS, keep=KeySecret.of, namespace=system, label_selector=f"{LABEL_API_KEY}=true")
    keyring = Informer(client, SECRETS, keep=lean, namespace=system, field_selector=f"metadata.name={SECRET_KEYRING}")
    readable = Tenants(tenants)
    keys = Keys(readable, key_secrets)
    writer = KeyringWriter(client, system, keys, keyring, applier, secrets.token_bytes)
    for informer in (tenants, key_secrets, keyring):
        informer.on_change(lambda _: writer.wake())
    wake(tenants, queue, of_tenant(tenants))
    wake(namespaces, queue, of_namespace(tenants))
    wake(key_secrets, queue, of_key_secret(tenants))
    for children in (quotas, policies):
        wake(children, queue, of_tenant_child)
    reconciler = TenantReconciler(readable, keys, namespaces, services, quotas, policies, applier, recorder)
    background = (Background("the keyring", writer.run),)
    return Wired(reconciler, writer, background, (namespaces, quotas, policies, key_secrets, keyring))


def _children(client: Api, resource: Resource) -> Informer[Object]:
    ours = f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_TENANT}"
    return Informer(client, resource, keep=lean, label_selector=ours, index={"by_tenant": by_tenant})


def _name_of(obj: Object) -> str | None:
    """A namespace that is going takes no new objects."""
    return None if obj["metadata"].get("deletionTimestamp") else str(obj["metadata"]["name"])
