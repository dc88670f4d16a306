"""Self-healing: what a person allows in `spec.healing`, and what the operator found and did, in `status.health`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from crds.fields import Part
from crds.rollout import Percent

FINDINGS_MOST = 8
ACTIONS_MOST = 20


class HealingMode(StrEnum):
    """act: diagnose and heal. advise: diagnose only. off: neither."""

    ACT = "act"
    ADVISE = "advise"
    OFF = "off"


class Healing(Part):
    """What the operator may do about workers that are not well."""

    mode: Annotated[
        HealingMode,
        Field(description="act heals; advise only says what it would do; off neither looks nor acts."),
    ] = HealingMode.ACT
    max_unavailable: Annotated[
        Percent,
        Field(description="Share of the desired workers that remedies may take at the same time; at least one worker."),
    ] = "10%"


class Remedy(StrEnum):
    """From the least to the most invasive."""

    SHIFT_TRAFFIC = "ShiftTraffic"
    RESTART_WORKER = "RestartWorker"
    ROLL_BACK = "RollBack"
    MOVE_WORKER = "MoveWorker"
    QUARANTINE = "Quarantine"
    FALL_BACK = "FallBack"


class Outcome(StrEnum):
    """What became of a remedy. Undone: taken back, and all is as it was before it."""

    PENDING = "Pending"
    HELPED = "Helped"
    NOT_HELPED = "NotHelped"
    UNDONE = "Undone"


class ErrorClass(StrEnum):
    """What kind of thing is broken."""

    MODEL = "Model"
    SYSTEM = "System"
    NETWORK = "Network"
    RESOURCE = "Resource"


class HealthFinding(Part):
    """One cause, and what speaks for it."""

    cause: Annotated[str, Field(description="As one CamelCase word for machines.", max_length=64)]
    error_class: Annotated[ErrorClass, Field(description="What kind of thing is broken.")]
    since: Annotated[str, Field(description="When it was found (RFC 3339).", json_schema_extra={"format": "date-time"})]
    workers: Annotated[list[str] | None, Field(description="Pods that show it, at most 8.", max_length=8)] = None
    affected: Annotated[int, Field(description="Number of workers that show it.", ge=0)] = 0
    nodes: Annotated[list[str] | None, Field(description="Their nodes, at most 8.", max_length=8)] = None
    evidence: Annotated[str, Field(description="What speaks for it, as it was found.", max_length=1024)]
    next: Annotated[str, Field(description="What is done about it, by whom, or why nothing is.", max_length=512)]
    advice: Annotated[str, Field(description="What a person should do.", max_length=512)]
    effect: Annotated[str, Field(description="What that will change.", max_length=512)]


class HealthAction(Part):
    """One remedy that the operator applied."""

    time: Annotated[str, Field(description="When (RFC 3339).", json_schema_extra={"format": "date-time"})]
    cause: Annotated[str, Field(description="Cause that it was for.", max_length=64)]
    remedy: Annotated[Remedy, Field(description="What was done.")]
    worker: Annotated[str | None, Field(description="Pod that it was done to.", max_length=253)] = None
    node: Annotated[str | None, Field(description="Its node.", max_length=253)] = None
    revision: Annotated[
        str | None, Field(description="Its revision, or the one that was rolled back.", max_length=63)
    ] = None
    reason: Annotated[str, Field(description="The evidence, as arithmetic.", max_length=1024)]
    outcome: Annotated[Outcome, Field(description="What became of it.")]
    checked: Annotated[
        str | None,
        Field(description="When that was known (RFC 3339).", json_schema_extra={"format": "date-time"}),
    ] = None


class HealthStatus(Part):
    """All that self-healing remembers; it survives restarts of the operator."""

    last_good: Annotated[
        str | None, Field(description="Newest revision of which all workers stood for a minute.", max_length=63)
    ] = None
    refused: Annotated[
        str | None,
        Field(description="The spec's revision, while it is not served because it can only crash.", max_length=63),
    ] = None
    serves: Annotated[str | None, Field(description="The revision that serves instead.", max_length=63)] = None
    why: Annotated[str | None, Field(description="Why it is refused.", max_length=1024)] = None
    findings: Annotated[
        list[HealthFinding] | None, Field(description="What is not well now.", max_length=FINDINGS_MOST)
    ] = None
    actions: Annotated[
        list[HealthAction] | None, Field(description="The last remedies, newest first.", max_length=ACTIONS_MOST)
    ] = None
