"""Tenant: who owns which namespaces, which keys speak for them, and how much they may use."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from crds.conditions import Condition
from crds.fields import Count, Duration, ListMap, ListSet, LongDuration, ObjectName, Part, Quantity, Rule
from crds.sla import Priority


class APIKeyRef(Part):
    """A Secret of the operator's namespace; each of its entries is one valid key, so two entries make a rotation."""

    secret: Annotated[
        ObjectName, Field(description='Name of the Secret; it needs the label foretide.dev/api-key: "true".')
    ]


class Quota(Part):
    """Upper limits for the Tenant's workers, and for all pods where it says so; what is left out is not limited."""

    cpu: Annotated[
        Quantity | None,
        Field(
            description="CPU cores that all pods of a namespace request, workers or not, in each namespace; a pod that "
            "requests none is refused there."
        ),
    ] = None
    memory: Annotated[
        Quantity | None,
        Field(
            description="Memory that all pods of a namespace request, workers or not, in each namespace; a pod that "
            "requests none is refused there."
        ),
    ] = None
    gpus: Annotated[Count | None, Field(description="Whole GPUs, over all namespaces together.")] = None
    mig_slices: Annotated[
        Count | None, Field(description="MIG slices of any profile, over all namespaces together.")
    ] = None
    mig_gigabytes: Annotated[
        Count | None,
        Field(description="GB of MIG slices, as their profiles name them, over all namespaces together."),
    ] = None
    shared_gigabytes: Annotated[
        Count | None,
        Field(description="GB of GPUs that are shared without MIG, over all namespaces together."),
    ] = None
    replicas: Annotated[Count | None, Field(description="Workers, over all namespaces together.")] = None


class Shares(Part):
    """Amounts of what a quota counts over all namespaces together."""

    gpus: Annotated[Count | None, Field(description="Whole GPUs.")] = None
    mig_slices: Annotated[Count | None, Field(description="MIG slices of any profile.")] = None
    mig_gigabytes: Annotated[Count | None, Field(description="GB of MIG slices, as their profiles name them.")] = None
    shared_gigabytes: Annotated[Count | None, Field(description="GB of GPUs that are shared without MIG.")] = None
    replicas: Annotated[Count | None, Field(description="Workers.")] = None


class Borrowing(Part):
    """Tenants of one cohort use what others of it leave of their quota, and give it back when it is wanted."""

    cohort: Annotated[ObjectName, Field(description="Name of the cohort: all Tenants that say the same name.")]
    limit: Annotated[
        Shares | None, Field(description="Most that it borrows over its quota; what is left out is not limited.")
    ] = None
    lending_limit: Annotated[
        Shares | None, Field(description="Most that it lends of its quota; what is left out is lent in full.")
    ] = None
    half_life: Annotated[
        LongDuration | None,
        Field(
            description="After this long what a Tenant borrowed counts half against it, for example 24h. The longest "
            "that any Tenant of the cohort says holds for all; where none does, only what is borrowed now counts."
        ),
    ] = None


class Limits(Part):
    """What the Tenant's clients may ask for, over all gateways together; what is left out is not limited."""

    rules: ClassVar = (
        Rule(
            "has(self.requestsPerMinute) || has(self.tokensPerMinute) || has(self.concurrency)"
            " || has(self.bytesPerSecond)",
            "set at least one of requestsPerMinute, tokensPerMinute, concurrency and bytesPerSecond",
        ),
        Rule(
            "duration(self.burst) >= duration('1s') && duration(self.burst) <= duration('1h')",
            "burst must be from 1s to 60m",
        ),
    )
    requests_per_minute: Annotated[
        int | None, Field(description="Requests that are admitted each minute.", ge=1, le=10_000_000)
    ] = None
    tokens_per_minute: Annotated[
        int | None,
        Field(
            description="Tokens of prompts and answers together each minute; what an answer may take is reserved when "
            "its request comes, and what it did not take is given back.",
            ge=1,
            le=1_000_000_000_000,
        ),
    ] = None
    concurrency: Annotated[
        int | None, Field(description="Requests that are open at the same time.", ge=1, le=1_000_000)
    ] = None
    bytes_per_second: Annotated[
        int | None,
        Field(
            description="Bytes of request bodies and answers each second. What is beyond waits, nothing is refused.",
            ge=1024,
            le=1_000_000_000_000,
        ),
    ] = None
    burst: Annotated[
        Duration,
        Field(
            description="How much of the limits over time can be saved up: after a pause, this long a time's worth is "
            "admitted at once (the depth of the token bucket is limit × burst ÷ 60 s)."
        ),
    ] = "10s"


class Prices(Part):
    """Of 1,000 tokens, in any one currency: what the cost metrics reckon with."""

    input: Annotated[Quantity, Field(description='Of 1,000 prompt tokens, for example "0.15".')] = "0"
    output: Annotated[Quantity, Field(description='Of 1,000 generated tokens, for example "0.60".')] = "0"


class TenantSpec(Part):
    """Namespaces, keys, quota and limits."""

    rules: ClassVar = (
        Rule(
            "!has(self.borrowing) || has(self.quota)",
            "borrowing needs quota: what is not limited cannot be borrowed or lent",
        ),
    )

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
    quota: Annotated[Quota | None, Field(description="Upper limits of what its workers take.")] = None
    borrowing: Annotated[
        Borrowing | None, Field(description="Whose quota it may use while they do not, and they its.")
    ] = None
    limits: Annotated[Limits | None, Field(description="Upper limits of what its clients ask for.")] = None
    weight: Annotated[
        int,
        Field(
            description="Its share of the tokens of a busy service, and of what a cohort lends, against the weights of "
            "the others.",
            ge=1,
            le=1000,
        ),
    ] = 1
    max_priority: Annotated[
        Priority, Field(description="Highest class that its requests have, whatever the SLA of the service.")
    ] = Priority.P0
    prices: Annotated[Prices | None, Field(description="What its tokens cost.")] = None
    cache_domain: Annotated[
        ObjectName | None,
        Field(
            description="Tenants that name the same domain share what workers keep of prompts: they are answered "
            "sooner, and can learn by timing how another's prompt begins. Left out: it shares with nobody."
        ),
    ] = None


class Averages(Part):
    """What was borrowed on average, to thousandths; what is left out was not."""

    gpus: Annotated[Quantity | None, Field(description="Whole GPUs.")] = None
    mig_slices: Annotated[Quantity | None, Field(description="MIG slices of any profile.")] = None
    mig_gigabytes: Annotated[Quantity | None, Field(description="GB of MIG slices.")] = None
    shared_gigabytes: Annotated[Quantity | None, Field(description="GB of GPUs that are shared without MIG.")] = None
    replicas: Annotated[Quantity | None, Field(description="Workers.")] = None


class FairShare(Part):
    """What the Tenant borrowed of its cohort lately: an average that forgets with the half-life."""

    cohort: Annotated[ObjectName, Field(description="The cohort that this speaks of.")]
    half_life: Annotated[LongDuration, Field(description="The cohort's half-life.")]
    sampled_at: Annotated[
        str,
        Field(description="When the average was last published (RFC 3339).", json_schema_extra={"format": "date-time"}),
    ]
    average: Annotated[Averages, Field(description="Borrowed over the quota, on average.")]
    standing: Annotated[
        str,
        Field(
            description="Of what the cohort borrowed on average, its part ÷ the part that its weight gives it among "
            "those who borrowed.",
            max_length=256,
        ),
    ] = ""


class TenantStatus(Part):
    """What stands, and how much is used."""

    observed_generation: Annotated[int | None, Field(description="metadata.generation that this status speaks of.")] = (
        None
    )
    conditions: Annotated[
        list[Condition] | None,
        ListMap(("type",)),
        Field(description="Ready and, while they apply, Stalled and Borrowing.", max_length=16),
    ] = None
    valid_keys: Annotated[int | None, Field(description="API keys that the gateway accepts.", ge=0)] = None
    services: Annotated[int | None, Field(description="InferenceServices in the Tenant's namespaces.", ge=0)] = None
    gpus: Annotated[str | None, Field(description="GPUs wanted, of those allowed.", max_length=32)] = None
    mig_slices: Annotated[str | None, Field(description="MIG slices wanted, of those allowed.", max_length=32)] = None
    mig_gigabytes: Annotated[
        str | None, Field(description="GB of MIG slices wanted, of those allowed.", max_length=32)
    ] = None
    shared_gigabytes: Annotated[
        str | None, Field(description="GB of shared GPUs wanted, of those allowed.", max_length=32)
    ] = None
    replicas: Annotated[str | None, Field(description="Workers wanted, of those allowed.", max_length=32)] = None
    fair_share: Annotated[
        FairShare | None, Field(description="What it borrowed lately, where its cohort has a half-life.")
    ] = None
