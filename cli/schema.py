"""A spec as a person wrote it, as `kubectl apply` would judge it: fields, values, and the rules of what is simulated.

The API server stays the judge of the other rules: of names, rollouts and engines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from cli.errors import CliError
from controllers.plans.units import names_text
from crds.fields import Part, seconds
from crds.inference_service import InferenceServiceSpec
from crds.scaling import ScalingPolicy, ScheduleWindow
from crds.sla import FIRST_TOKEN, SLASpec

Spec = TypeVar("Spec", SLASpec, InferenceServiceSpec)
Rule = tuple[bool, str]
"""Whether it holds, and what is said where it does not."""


def checked(kind: type[Spec], said: object, where: str) -> Spec:
    """The spec of an object.

    Raises:
        CliError: it would be refused; says which field and why, after `where`.
    """
    try:
        text = json.dumps(_without_nulls(said))
        spec = kind.model_validate_json(text, strict=True, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        raise CliError(f"{where}: {_sentence(kind, error.errors()[0])}") from error
    for holds, message in _sla_rules(spec) if isinstance(spec, SLASpec) else _service_rules(spec):
        if not holds:
            raise CliError(f"{where}: {message}.")
    return spec


def _without_nulls(said: object) -> object:
    """As the API server prunes them where nothing may be null."""
    if isinstance(said, dict):
        return {name: _without_nulls(value) for name, value in said.items() if value is not None}
    return [_without_nulls(each) for each in said] if isinstance(said, list) else said


def _sentence(kind: type[Part], error: Any) -> str:
    path = error["loc"]
    field = ".".join(map(str, ("spec", *path)))
    if error["type"] != "extra_forbidden":
        return f"{field}: {error['msg']} (found {error['input']!r})."
    known = _fields_beside(kind, path)
    close = get_close_matches(str(path[-1]), known, n=1)
    return f"{field} is not known; " + (f"did you mean '{close[0]}'?" if close else f"there are {names_text(known)}.")


def _fields_beside(kind: type[Part], path: Sequence[str | int]) -> list[str]:
    schema = kind.model_json_schema()
    part = schema
    for step in path[:-1]:
        part = part["items"] if isinstance(step, int) else part["properties"][step]
        part = next((arm for arm in part.get("anyOf", ()) if arm.get("type") != "null"), part)
        part = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    return list(part["properties"])


def _service_rules(spec: InferenceServiceSpec) -> Iterator[Rule]:
    accelerator, scaling = spec.accelerator, spec.scaling
    kinds = (accelerator.cpu, accelerator.gpu, accelerator.mig, accelerator.shared)
    yield sum(each is not None for each in kinds) == 1, "spec.accelerator: set exactly one of cpu, gpu, mig and shared"
    if scaling is None:
        return
    is_alone = spec.replicas is None or scaling.policy is ScalingPolicy.ADVISORY
    yield is_alone, "spec: set either replicas or scaling; only policy advisory leaves replicas to others"
    windows = scaling.schedule or []
    names = [window.name for window in windows]
    yield len(set(names)) == len(names), "spec.scaling.schedule: two windows have the same name"
    for window in windows:
        yield from _window_rules(window, scaling.max)


def _window_rules(window: ScheduleWindow, most: int) -> Iterator[Rule]:
    at, limits = f"spec.scaling.schedule '{window.name}'", (window.min, window.max)
    yield limits != (None, None), f"{at}: a window sets min, max or both"
    beyond = max(limit or 0 for limit in limits)
    yield beyond <= most, f"{at}: {beyond} is beyond spec.scaling.max {most}; raise that to the most of any time"
    yield (window.min or 0) <= (window.max or most), f"{at}: min {window.min} is greater than max {window.max}"
    yield window.start != window.end, f"{at}: start and end are both {window.start}; they must differ"


def _sla_rules(spec: SLASpec) -> Iterator[Rule]:
    yield (spec.availability is None) == (spec.window is None), "spec: availability and window come together"
    if spec.targets is None:
        return
    ttft, e2e = spec.targets.ttft, spec.targets.e2e
    yield bool(ttft or spec.targets.tpot or e2e), "spec.targets: set at least one of ttft, tpot and e2e"
    if ttft and e2e:
        yield seconds(ttft) <= seconds(e2e), f"spec.targets: ttft {ttft} is longer than e2e {e2e}"
    if ttft and (most := FIRST_TOKEN.get(spec.priority)):
        means = f"spec.targets.ttft is {ttft}; {spec.priority} means a first token within {seconds(most):g} s"
        yield seconds(ttft) <= seconds(most), f"{means}. Lower it, or choose another priority"
