"""The spec of an InferenceService with the chosen MIG profile in the place of `auto`, for everyone who counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crds.inference_service import InferenceServiceSpec
from crds.reading import unread_of


def spec_of(service: Mapping[str, Any]) -> InferenceServiceSpec:
    """Of an InferenceService as JSON; `auto` stays where nothing was chosen yet.

    One that cannot be read asks for the workers that were decided last, no more and no fewer: what it has, all count.
    """
    spec, status = InferenceServiceSpec.model_validate(service["spec"]), service.get("status") or {}
    if unread_of(service):
        spec = spec.model_copy(update={"replicas": status.get("desiredReplicas") or 0, "scaling": None})
    chosen = (status.get("slice") or {}).get("profile")
    return with_profile(spec, chosen) if is_auto(spec) and chosen else spec


def is_auto(spec: InferenceServiceSpec) -> bool:
    """The MIG profile is the operator's to choose."""
    return spec.accelerator.mig is not None and spec.accelerator.mig.is_auto


def with_profile(spec: InferenceServiceSpec, profile: str) -> InferenceServiceSpec:
    """On slices of this profile."""
    mig = spec.accelerator.mig
    assert mig is not None, "a profile is chosen for services on MIG only"
    accelerator = spec.accelerator.model_copy(update={"mig": mig.model_copy(update={"profile": profile})})
    return spec.model_copy(update={"accelerator": accelerator})
