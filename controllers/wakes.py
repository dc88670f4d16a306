"""Which keys a change concerns: from the object that changed to the objects that must be looked at again. Pure.

An object that changed itself needs no line here: the runtime marks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from controllers.plans.model import claim_of
from controllers.runtime.interface import Key, Marker
from crds.contract import LABEL_MODEL, LABEL_TENANT
from kube.informer import Change, Informer
from kube.resources import CAPACITY_FORECASTS, MODELS, SLAS, TENANTS, Object

Keys = Callable[[Change[Any]], Iterable[Key]]


def wake(informer: Informer[Any], queue: Marker, keys: Keys) -> None:
    """Each change of `informer` marks what `keys` says."""

    def mark(change: Change[Any]) -> None:
        for key in keys(change):
            queue.add(key)

    informer.on_change(mark)


# --- indexes of the caches -------------------------------------------------------------------------------------
def by_namespace(obj: Object) -> Iterable[str]:
    """`namespace`."""
    return (str(obj["metadata"]["namespace"]),)


def by_tenant(child: Object) -> Iterable[str]:
    """Name of the Tenant whose child it is."""
    name = (child["metadata"].get("labels") or {}).get(LABEL_TENANT)
    return (str(name),) if name else ()


# --- who is concerned ------------------------------------------------------------------------------------------
def of_service(tenants: Informer[Object]) -> Keys:
    """A service: its Model and SLA when it names another, its Tenants when it asks for more or less."""

    def keys(change: Change[Object]) -> Iterator[Key]:
        for kind, field in ((MODELS.kind, "model"), (SLAS.kind, "sla")):
            named = [one["spec"].get(field) for one in (change.old, change.new) if one]
            if len(named) < 2 or named[0] != named[1]:
                yield from (Key(kind, change.namespace, name) for name in named if name)
        sides = [one for one in (change.old, change.new) if one]
        told = [(one["spec"], one.get("status") or {}) for one in sides]
        asked = [(spec, status.get("desiredReplicas"), status.get("slice")) for spec, status in told]
        if len(asked) < 2 or asked[0] != asked[1]:
            yield from _tenant_keys(tenants.by("by_namespace", change.namespace or ""))

    return keys


def forecast_of(change: Change[Any]) -> Iterator[Key]:
    """A service: its CapacityForecast, when it begins or ceases to scale, or wants other workers or more or fewer."""
    told = [(one["spec"].get("scaling"), one.get("status") or {}) for one in (change.old, change.new) if one]
    asked = [(scaling, status.get("desiredReplicas"), status.get("slice")) for scaling, status in told]
    if any(scaling for scaling, *_ in asked) and (len(asked) < 2 or asked[0] != asked[1]):
        yield Key(CAPACITY_FORECASTS.kind, change.namespace, change.name)


def of_node(models: Informer[Object]) -> Keys:
    """A node came, went or has other labels: every Model counts its copies anew."""
    return lambda _: [Key(MODELS.kind, namespace, name) for namespace, name in models.places()]


def of_claim(models: Informer[Object]) -> Keys:
    """A claim: the Model whose volume it is, and the Models that lie on it."""

    def keys(change: Change[Object]) -> Iterator[Key]:
        yield from _labelled(change, LABEL_MODEL, MODELS.kind, change.namespace)
        for model in models.by("by_namespace", change.namespace or ""):
            if claim_of(model["spec"]["source"]) == change.name:
                yield Key(MODELS.kind, change.namespace, model["metadata"]["name"])

    return keys


def of_volume(change: Change[Object]) -> Iterator[Key]:
    """A volume of ours: its Model."""
    claim: Mapping[str, Any] = ((change.new or change.old or {}).get("spec") or {}).get("claimRef") or {}
    return _labelled(change, LABEL_MODEL, MODELS.kind, claim.get("namespace"))


def of_namespace(tenants: Informer[Object]) -> Keys:
    """A namespace came or went: the Tenants that list it."""
    return lambda change: _tenant_keys(tenants.by("by_namespace", change.name))


def of_tenant(tenants: Informer[Object]) -> Keys:
    """A Tenant: the others that list a namespace it lists or listed; its cohort, whose half-life it may change."""

    def keys(change: Change[Object]) -> Iterator[Key]:
        sides = [one["spec"] for one in (change.old, change.new) if one]
        for namespace in {name for one in sides for name in one["namespaces"]}:
            yield from (key for key in _tenant_keys(tenants.by("by_namespace", namespace)) if key.name != change.name)
        lends = [one.get("borrowing") or {} for one in sides]
        if len(lends) < 2 or lends[0] != lends[1]:
            cohorts = {one["cohort"] for one in lends if one}
            others = [one for one in tenants.items() if (one["spec"].get("borrowing") or {}).get("cohort") in cohorts]
            yield from (key for key in _tenant_keys(others) if key.name != change.name)

    return keys


def of_key_secret(tenants: Informer[Object]) -> Keys:
    """A Secret with keys: every Tenant, since a key may have become another one's, too."""
    return lambda _: _tenant_keys(tenants.items())


def of_tenant_child(change: Change[Object]) -> Iterator[Key]:
    """A quota or a policy: the Tenant in its label."""
    return _labelled(change, LABEL_TENANT, TENANTS.kind, None)


def _labelled(change: Change[Object], label: str, kind: str, namespace: str | None) -> Iterator[Key]:
    for one in (change.old, change.new):
        name = ((one or {}).get("metadata", {}).get("labels") or {}).get(label)
        if name:
            yield Key(kind, namespace, name)


def _tenant_keys(tenants: Iterable[Object]) -> list[Key]:
    return [Key(TENANTS.kind, None, tenant["metadata"]["name"]) for tenant in tenants]
