"""InferenceServices in a YAML file, with the SLAs beside them: what a person is about to apply.

Reads only what the simulation needs; the API server stays the judge of everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from cli.errors import CliError
from controllers.plans.carried import slo_of
from crds.fields import seconds
from crds.inference_service import InferenceServiceSpec
from crds.sla import SLASpec
from forecasting.simulator.world import Slo

API_GROUP = "foretide.dev/"
Spec = TypeVar("Spec", SLASpec, InferenceServiceSpec)


@dataclass(frozen=True, slots=True)
class Subject:
    """One service of one file.

    slo: from its SLA where the file holds that, else the default. promise: of the SLA alone, as the operator knows it.
    """

    label: str
    namespace: str
    name: str
    spec: InferenceServiceSpec
    slo: Slo
    promise: Slo | None
    text: str


def read_services(path: Path, default: Slo) -> list[Subject]:
    """All InferenceServices of a file.

    Raises:
        CliError: the file is no YAML, holds no InferenceService, or one that the schema refuses.
    """
    try:
        text = path.read_text(encoding="utf-8")
        documents = [each for each in yaml.safe_load_all(text) if isinstance(each, dict)]
    except OSError as error:
        raise CliError(f"{path}: {error.strerror or error}. Name a file with an InferenceService.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CliError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    ours = [each for each in documents if str(each.get("apiVersion", "")).startswith(API_GROUP)]
    slas = {_name(each): _spec(path, each, SLASpec) for each in ours if each.get("kind") == "SLA"}
    found = [_subject(path, each, slas, default, text) for each in ours if each.get("kind") == "InferenceService"]
    if not found:
        kinds = ", ".join(sorted({str(each.get("kind")) for each in documents})) or "nothing"
        raise CliError(f"{path}: holds {kinds}, but no InferenceService of {API_GROUP}v1alpha1.")
    return found


def _name(document: dict[str, Any]) -> tuple[str, str]:
    metadata = document.get("metadata") or {}
    return str(metadata.get("namespace", "default")), str(metadata.get("name", ""))


def _spec(path: Path, document: dict[str, Any], kind: type[Spec]) -> Spec:
    try:
        return kind.model_validate(document.get("spec") or {})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise CliError(
            f"{path}: {document.get('kind')} '{_name(document)[1]}': spec.{field}: {first['msg']}"
            f" (found {first['input']!r})."
        ) from error


def _subject(
    path: Path, document: dict[str, Any], slas: dict[tuple[str, str], SLASpec], default: Slo, text: str
) -> Subject:
    spec = _spec(path, document, InferenceServiceSpec)
    namespace, name = _name(document)
    sla = slas.get((namespace, spec.sla)) if spec.sla else None
    promise = slo_of(sla.targets if sla else None)
    return Subject(f"{name} ({path.name})", namespace, name, spec, _slo(sla, default), promise, text)


def _slo(sla: SLASpec | None, default: Slo) -> Slo:
    if sla is None or sla.targets is None:
        return default
    targets = sla.targets
    return Slo(
        ttft_s=seconds(targets.ttft) if targets.ttft else default.ttft_s,
        tpot_s=seconds(targets.tpot) if targets.tpot else default.tpot_s,
        attainment=targets.percentile / 100,
    )
