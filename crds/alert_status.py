"""What an AlertPolicy says: what fires, which incidents are open, and who was told of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from crds.conditions import Condition
from crds.fields import ListMap, Part

ALERTS_SHOWN = 100
INCIDENTS_SHOWN = 50
DELIVERIES_SHOWN = 16


class AlertSeverity(StrEnum):
    """P0: wake somebody; P1: today; P2: a ticket."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"


_TIME = {"format": "date-time"}


class AlertShown(Part):
    """One alert that waits or fires, or is over and belongs to an incident that is still told of."""

    fingerprint: Annotated[str, Field(description="What tells it from others.", max_length=32)]
    rule: Annotated[str, Field(description="Name of the alert.", max_length=253)]
    subject: Annotated[str, Field(description="What it is about, for example service/chat.", max_length=300)]
    severity: Annotated[AlertSeverity, Field(description="P0, P1 or P2.")]
    state: Annotated[str, Field(description="pending, firing, flapping or resolved.", max_length=16)]
    since: Annotated[str, Field(description="Since when it is so.", json_schema_extra=_TIME)]
    message: Annotated[str, Field(description="The arithmetic.", max_length=1024)]
    incident: Annotated[str | None, Field(description="The incident it belongs to.", max_length=32)] = None
    labels: Annotated[dict[str, str] | None, Field(description="Its labels.", max_length=64)] = None
    external: Annotated[bool | None, Field(description="An Alertmanager says that it fires.")] = None
    muted_by: Annotated[str | None, Field(description="Why it is not told.", max_length=300)] = None


class DeliveryShown(Part):
    """What one receiver was told of one incident."""

    receiver: Annotated[str, Field(description="Its name.", max_length=63)]
    said: Annotated[str | None, Field(description="firing or resolved: what it last took.", max_length=16)] = None
    time: Annotated[str | None, Field(description="When.", json_schema_extra=_TIME)] = None
    digest: Annotated[str | None, Field(description="Of what it was told.", max_length=32)] = None
    severity: Annotated[AlertSeverity | None, Field(description="The severity it was told.")] = None
    attempts: Annotated[int, Field(description="Failed attempts since.", ge=0)] = 0
    error: Annotated[str | None, Field(description="Why the last attempt failed.", max_length=500)] = None
    doubtful: Annotated[
        bool | None,
        Field(description="A message is under way, or ended so that nobody knows whether it was taken."),
    ] = None


class IncidentShown(Part):
    """Alerts of one cause."""

    id: Annotated[str, Field(description="Its name, the same in every message.", max_length=32)]
    root: Annotated[str, Field(description="The likeliest cause, for example node/gpu-3.", max_length=300)]
    causes: Annotated[
        list[str] | None, Field(description="The likeliest causes and why, best first.", max_length=3)
    ] = None
    severity: Annotated[AlertSeverity, Field(description="Of its worst alert.")]
    group: Annotated[
        dict[str, str] | None, Field(description="Labels besides the cause by which it was grouped.", max_length=8)
    ] = None
    opened: Annotated[str, Field(description="When it was opened.", json_schema_extra=_TIME)]
    resolved: Annotated[str | None, Field(description="When it was over.", json_schema_extra=_TIME)] = None
    alerts: Annotated[int, Field(description="Alerts that belong to it.", ge=0)]
    firing: Annotated[int, Field(description="Those that fire.", ge=0)]
    deliveries: Annotated[
        list[DeliveryShown] | None,
        ListMap(("receiver",)),
        Field(description="Who was told.", max_length=DELIVERIES_SHOWN),
    ] = None


class AlertPolicyStatus(Part):
    """Counts, and the newest of what they count."""

    observed_generation: Annotated[int | None, Field(description="metadata.generation that this status speaks of.")] = (
        None
    )
    conditions: Annotated[
        list[Condition] | None,
        ListMap(("type",)),
        Field(description="Ready and, while it applies, Stalled.", max_length=16),
    ] = None
    firing: Annotated[int | None, Field(description="Alerts that fire.", ge=0)] = None
    pending: Annotated[int | None, Field(description="Alerts that have not lasted long enough.", ge=0)] = None
    muted: Annotated[int | None, Field(description="Firing alerts that are silenced or inhibited.", ge=0)] = None
    open_incidents: Annotated[int | None, Field(description="Incidents that are open.", ge=0)] = None
    undelivered: Annotated[int | None, Field(description="Messages that a receiver has not taken yet.", ge=0)] = None
    epoch: Annotated[
        int | None, Field(description="Grows with every change; tells which memory is the newer.", ge=0)
    ] = None
    exported: Annotated[str | None, Field(description="Where the rules for Prometheus lie.", max_length=300)] = None
    alerts: Annotated[
        list[AlertShown] | None,
        ListMap(("fingerprint",)),
        Field(description="The worst of them, the newest first.", max_length=ALERTS_SHOWN),
    ] = None
    incidents: Annotated[
        list[IncidentShown] | None,
        ListMap(("id",)),
        Field(description="Open incidents, the newest first.", max_length=INCIDENTS_SHOWN),
    ] = None
