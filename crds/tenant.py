"""Tenant: who owns which namespaces, which keys speak for them, and how much they may use."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crds.conditions import Condition
from crds.fields import Count, ListMap, ListSet, ObjectName, Part, Quantity


class APIKeyRef(Part):
    """A Secret of the operator's namespace; each of its entries is one valid key, so two entries make a rotation."""

    secret: Annotated[
        ObjectName, Field(description='Name of the Secret; it needs the label foretide.dev/api-key: "true".')
    ]


class Quota(Part):
    """Upper limits for all workers in each namespace of the Tenant; what is left out is not limited."""

    cpu: Annotated[Quantity | None, Field(description="CPU cores requested by workers, in each namespace.")] = None
    memory: Annotated[Quantity | None, Field(description="Memory requested by workers, in each namespace.")] = None
    gpus: Annotated[Count | None, Field(description="Whole GPUs, over all namespaces together.")] = None
    mig_slices: Annotated[
        Count | None, Field(description="MIG slices of any profile, over all namespaces together.")
    ] = None
    replicas: Annotated[Count | None, Field(description="Workers, over all namespaces together.")] = None


class TenantSpec(Part):
    """Namespaces, keys and quota."""

    namespaces: Annotated[
        list[ObjectName],
        ListSet(),
        Field(
            description="Namespaces that belong to this Tenant; a namespace has one Tenant.",
            min_length=1,
            max_length=64,
        ),
    ]
    api_keys: Annotated[
        list[APIKeyRef] | None,
        ListMap(("secret",)),
        Field(description="Secrets with the keys of this Tenant's clients.", max_length=64),
    ] = None
    quota: Annotated[Quota | None, Field(description="Upper limits.")] = None


class TenantStatus(Part):
    """What stands, and how much is used."""

    observed_generation: Annotated[int | None, Field(description="metadata.generation that this status speaks of.")] = (
        None
    )
    conditions: Annotated[
        list[Condition] | None,
        ListMap(("type",)),
        Field(description="Ready and, while it applies, Stalled.", max_length=16),
    ] = None
    valid_keys: Annotated[int | None, Field(description="API keys that the gateway accepts.", ge=0)] = None
    services: Annotated[int | None, Field(description="InferenceServices in the Tenant's namespaces.", ge=0)] = None
    gpus: Annotated[str | None, Field(description="GPUs wanted, of those allowed.", max_length=32)] = None
    mig_slices: Annotated[str | None, Field(description="MIG slices wanted, of those allowed.", max_length=32)] = None
    replicas: Annotated[str | None, Field(description="Workers wanted, of those allowed.", max_length=32)] = None
