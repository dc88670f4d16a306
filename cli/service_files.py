"""InferenceServices in a YAML file, with the SLAs beside them: what a person is about to apply. Reads nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cli.errors import CliError
from cli.schema import Spec, checked
from controllers.plans.carried import slo_of
from crds.inference_service import InferenceServiceSpec
from crds.sla import SLASpec
from forecasting.simulator.world import Slo

API_GROUP = "foretide.dev/"


class _Loader(yaml.SafeLoader):
    """As kubectl reads: `18:00` and `2026-01-01T00:00:00Z` are text without quotes, too."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag.rpartition(":")[2] not in ("timestamp", "int")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0x[0-9a-fA-F]+|[0-9]+)$"), list("-+0123456789")
)


@dataclass(frozen=True, slots=True)
class Subject:
    """One service of one file.

    promise: of the SLA that the file holds, as the operator knows it; None where that bounds neither TTFT nor TPOT.
    slo: that, else the default, and default_because says why.
    """

    label: str
    namespace: str
    name: str
    spec: InferenceServiceSpec
    slo: Slo
    promise: Slo | None
    default_because: str | None
    text: str


def read_services(path: Path, default: Slo) -> list[Subject]:
    """All InferenceServices of a file.

    Raises:
        CliError: the file is no YAML, holds no InferenceService, or one that the schema refuses.
    """
    try:
        text = path.read_text(encoding="utf-8")
        documents = [each for each in yaml.load_all(text, _Loader) if isinstance(each, dict)]
    except OSError as error:
        raise CliError(f"{path}: {error.strerror or error}. Name a file with an InferenceService.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CliError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    ours = [each for each in documents if str(each.get("apiVersion", "")).startswith(API_GROUP)]
    slas = {_name(path, each): _spec(path, each, SLASpec) for each in ours if each.get("kind") == "SLA"}
    found = [_subject(path, each, slas, default, text) for each in ours if each.get("kind") == "InferenceService"]
    if not found:
        kinds = ", ".join(sorted({str(each.get("kind")) for each in documents})) or "nothing"
        raise CliError(f"{path}: holds {kinds}, but no InferenceService of {API_GROUP}v1alpha1.")
    return found


def _name(path: Path, document: dict[str, Any]) -> tuple[str, str]:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise CliError(f"{path}: {document.get('kind')} without a name: metadata.name is needed (found {metadata!r}).")
    return str(metadata.get("namespace", "default")), str(metadata["name"])


def _spec(path: Path, document: dict[str, Any], kind: type[Spec]) -> Spec:
    where = f"{path}: {document.get('kind')} '{_name(path, document)[1]}'"
    return checked(kind, document.get("spec") or {}, where)


def _subject(
    path: Path, document: dict[str, Any], slas: dict[tuple[str, str], SLASpec], default: Slo, text: str
) -> Subject:
    spec = _spec(path, document, InferenceServiceSpec)
    namespace, name = _name(path, document)
    sla = slas.get((namespace, spec.sla)) if spec.sla else None
    promise = slo_of(sla.targets if sla else None)
    because = None if promise else _why_none(spec.sla, sla, namespace)
    return Subject(f"{name} ({path.name})", namespace, name, spec, promise or default, promise, because, text)


def _why_none(name: str | None, sla: SLASpec | None, namespace: str) -> str:
    if name is None:
        return "it names no SLA"
    return f"SLA '{namespace}/{name}' {'is not in the file' if sla is None else 'bounds neither TTFT nor TPOT'}"
