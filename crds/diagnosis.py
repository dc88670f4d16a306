"""What was wrong with a service when an alert asked, in `status.diagnosis`: causes, evidence, advice."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crds.fields import Part

CAUSES_MOST = 4


class DiagnosedCause(Part):
    """One cause, and what to do."""

    cause: Annotated[str, Field(description="As one CamelCase word for machines.", max_length=64)]
    evidence: Annotated[str, Field(description="What speaks for it, as it was found.", max_length=1024)]
    advice: Annotated[str, Field(description="What a person should do.", max_length=512)]


class DiagnosisStatus(Part):
    """The answer to one alert."""

    alert: Annotated[str, Field(description="Name of the alert.", max_length=253)]
    policy: Annotated[str, Field(description="AlertPolicy that asked, as namespace/name.", max_length=127)]
    since: Annotated[
        str,
        Field(description="When the alert began to fire (RFC 3339).", json_schema_extra={"format": "date-time"}),
    ]
    time: Annotated[
        str, Field(description="When this was found (RFC 3339).", json_schema_extra={"format": "date-time"})
    ]
    causes: Annotated[
        list[DiagnosedCause], Field(description="The likeliest first.", max_length=CAUSES_MOST, min_length=1)
    ]
