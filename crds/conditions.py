"""Conditions: the one way in which an object says how it is.

`Ready`, `Reconciling` and `Stalled` follow kstatus, so `kubectl wait`, Flux and Argo CD understand every kind of ours.
`Reconciling` and `Stalled` stand only while they are true; one that does not apply is removed, never set to True.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from crds.fields import Part

READY = "Ready"
"""What the spec asks for stands. On an InferenceService: the desired workers of the current revision are ready."""
SERVABLE = "Servable"
"""InferenceService only: a request sent now through the gateway would be answered."""
RECONCILING = "Reconciling"
"""Present while work is under way that will end by itself."""
STALLED = "Stalled"
"""Present while a person has to change something; the message says what."""
SCALING_HELD = "ScalingHeld"
"""InferenceService only: present while the operator keeps off the number of workers; the message says why."""
SCALING_LIMITED = "ScalingLimited"
"""InferenceService only: present while Tenant or pools leave fewer workers than are called for; the message says whose
limit it is."""
QUALITY_DRIFT = "QualityDrift"
"""InferenceService only: present while answers of a revision are unlike those of the baseline; the message says how. It
is advice: nothing follows from it by itself."""
DEGRADED = "Degraded"
"""InferenceService only: present while workers are not well; reason and message say why and what is done."""
FORECAST_TRUSTED = "ForecastTrusted"
"""InferenceService with a predictive or advisory policy: whether its forecast decides, or why it does not."""
WEAK_ISOLATION = "WeakIsolation"
"""InferenceService only: present while its workers share GPUs without MIG; the message says what is not kept apart."""
WORKERS_OUTDATED = "WorkersOutdated"
"""InferenceService only: present while its workers are as an earlier release of the operator made them. They serve, and
stay; the message says how to have them replaced."""
BORROWING = "Borrowing"
"""Tenant only: present while its services have more than its quota; the message says how much, and of which cohort."""
DEMAND_MET = "DemandMet"
"""GPUPool only: whether every worker that services ask for has a slice; the message says what is missing."""


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Part):
    """`metav1.Condition`."""

    type: Annotated[str, Field(description="Name of the condition in CamelCase.", max_length=316)]
    status: Annotated[ConditionStatus, Field(description="True, False or Unknown.")]
    observed_generation: Annotated[
        int | None, Field(description="metadata.generation that the condition speaks of.", ge=0)
    ] = None
    last_transition_time: Annotated[
        str, Field(description="When status last changed (RFC 3339).", json_schema_extra={"format": "date-time"})
    ]
    reason: Annotated[str, Field(description="Why, as one CamelCase word for machines.", max_length=1024, min_length=1)]
    message: Annotated[str, Field(description="Why, as a sentence for people.", max_length=32768)]
