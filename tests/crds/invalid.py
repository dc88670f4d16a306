"""Invalid objects: by hand where a sentence of ours answers; from the schemas for every bound of every field."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crds.contract import API_VERSION
from crds.kinds import KINDS, Kind
from crds.render import object_schema

Object = dict[str, Any]
NAMESPACE = "crd-tests"

VALID_SPEC: dict[str, Object] = {
    "InferenceService": {"model": "m", "accelerator": {"cpu": {}}},
    "Model": {"source": "https://models.example.com/a.gguf"},
    "SLA": {"priority": "P1"},
    "Tenant": {"namespaces": ["demo"]},
    "CapacityForecast": {"service": "valid"},
    "GPUPool": {"nodeSelector": {"pool": "gpus"}},
    "AlertPolicy": {"rules": [{"name": "down", "metric": "unservable", "threshold": {"above": "0"}}]},
}


@dataclass(frozen=True)
class Case:
    """An object that must be refused, and what the answer must say."""

    name: str
    obj: Object
    says: str


def valid(kind: str, name: str = "valid", **spec: Any) -> Object:
    """A small valid object of `kind`; `spec` replaces fields at the top of its spec."""
    scope = {} if kind in ("Tenant", "GPUPool") else {"namespace": NAMESPACE}
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, **scope},
        "spec": copy.deepcopy(VALID_SPEC[kind]) | spec,
    }


def _written(kind: str, says: str, **spec: Any) -> Case:
    return Case(f"{kind}: {says}", valid(kind, **spec), says)


def _rollouts() -> Iterator[Case]:
    """Rollouts that contradict themselves."""
    wrong: list[tuple[str, Object]] = [
        ("set maxSurge to 1 or more", {"strategy": "canary", "maxSurge": 0, "maxUnavailable": 1}),
        ("steps need strategy canary or blueGreen", {"steps": [{"weight": 5}]}),
        ("a step of a canary has a weight below 100", {"strategy": "canary", "steps": [{"weight": 100}]}),
        ("a step of blueGreen has weight 0 or 100", {"strategy": "blueGreen", "steps": [{"weight": 50}]}),
        ("weights of steps must not fall", {"strategy": "canary", "steps": [{"weight": 10}, {"weight": 5}]}),
        ("a step of weight 0 needs mirror", {"strategy": "canary", "steps": [{"weight": 0}]}),
        ("abort and promote name the same revision", {"abort": "a1", "promote": "a1"}),
        ("tolerance must be smaller than margin", {"analysis": {"tolerance": 20, "margin": 20}}),
    ]
    return (_written("InferenceService", says, rollout=rollout) for says, rollout in wrong)


CPU = {"cpu": {}}
PARTS: dict[str, Object] = {
    "cpu": {},
    "gpu": {},
    "mig": {"profile": "1g.5gb"},
    "shared": {"strategy": "mps", "gigabytes": 20},
}
WINDOW = {"name": "day", "start": "08:00", "end": "18:00"}
WRITTEN = [
    _written("InferenceService", "set either replicas or scaling, not both", replicas=1, scaling={"max": 2}),
    _written("InferenceService", "min must not be greater than max", scaling={"min": 3, "max": 2}),
    _written("InferenceService", "a window sets min, max or both", scaling={"max": 2, "schedule": [WINDOW]}),
    _written(
        "InferenceService",
        "min must not be greater than max",
        scaling={"max": 2, "schedule": [WINDOW | {"min": 2, "max": 1}]},
    ),
    _written(
        "InferenceService",
        "start and end must differ",
        scaling={"max": 2, "schedule": [WINDOW | {"min": 2, "end": "08:00"}]},
    ),
    _written("InferenceService", "no window may go beyond max", scaling={"max": 2, "schedule": [WINDOW | {"max": 3}]}),
    _written(
        "InferenceService", "Mars", scaling={"max": 2, "schedule": [WINDOW | {"min": 2, "timeZone": "Mars/Base"}]}
    ),
    *(
        _written(
            "InferenceService", "timeZone", scaling={"max": 2, "schedule": [WINDOW | {"min": 2, "timeZone": zone}]}
        )
        for zone in ("01:00", "-08:00", "Local")
    ),
    _written(
        "GPUPool",
        "start and end must differ",
        repartition={"windows": [{"name": "night", "start": "01:00", "end": "01:00"}]},
    ),
    _written("CapacityForecast", "metadata.name must be the name of the InferenceService", service="another"),
    _written("InferenceService", "set exactly one of cpu, gpu, mig and shared", accelerator={}),
    _written("InferenceService", "set exactly one of cpu, gpu, mig and shared", accelerator=CPU | {"gpu": {}}),
    _written(
        "InferenceService",
        "set exactly one of cpu, gpu, mig and shared",
        accelerator={"gpu": {}, "mig": {"profile": "1g.5gb"}},
    ),
    _written(
        "InferenceService", "spec.accelerator.shared.gigabytes: Required", accelerator={"shared": {"strategy": "mps"}}
    ),
    _written("InferenceService", "Unsupported value", accelerator={"shared": {"strategy": "magic", "gigabytes": 20}}),
    _written(
        "InferenceService",
        "set exactly one of cpu, gpu, mig and shared",
        accelerator=CPU | {"shared": {"strategy": "mps", "gigabytes": 20}},
    ),
    _written("InferenceService", "maxSurge and maxUnavailable must not both be 0", rollout={"maxSurge": 0}),
    *_rollouts(),
    _written("InferenceService", "a fallback names a service, a maxTokens, or both", fallbacks=[{}]),
    _written(
        "InferenceService",
        "minBatch must not be larger than maxBatch",
        engine={"scheduling": {"minBatch": 3, "maxBatch": 2}},
    ),
    _written("InferenceService", "minWait needs a maxWait", engine={"scheduling": {"minWait": "1s"}}),
    _written(
        "InferenceService", "operator Exists accepts every value", tolerations=[{"operator": "Exists", "value": "b"}]
    ),
    _written("InferenceService", "only operator Exists goes without a key", tolerations=[{"value": "b"}]),
    _written("InferenceService", "value is no value of a taint", tolerations=[{"key": "a", "value": "b c"}]),
    *(
        _written("InferenceService", "key is no key of a taint", tolerations=[{"key": key, "operator": "Exists"}])
        for key in ("a b", "a/b/c", "-a", "/a", "Example.com/a", f"{'a' * 254}/b")
    ),
    *(
        _written(kind, "values of labels have at most 63 letters", nodeSelector={"a": value})
        for kind in ("InferenceService", "Model")
        for value in ("v" * 64, "v-", "a b")
    ),
    *(
        _written(kind, "keys of labels are names like 'disk'", nodeSelector={key: "v"})
        for kind in ("InferenceService", "Model")
        for key in ("", "a b", "a/b/c", "-a", "/a", "k" * 64, f"{'a' * 254}/b")
    ),
    *(
        _written("InferenceService", "must be greater than 0", accelerator={part: said | {"cores": cores}})
        for part, said in PARTS.items()
        for cores in (0, "0", "0.00m")
    ),
    *(
        _written("InferenceService", "must be one byte or more", accelerator={part: said | {"memory": memory}})
        for part, said in PARTS.items()
        for memory in (0, "0Gi", "512m")
    ),
    *(
        _written("InferenceService", "must be one byte or more", engine={"kvCache": memory})
        for memory in (0, "0", "512m")
    ),
    _written("InferenceService", "are not for workers", priorityClassName="system-node-critical"),
    _written("InferenceService", "spec.scaling.max: Required value", scaling={"min": 1}),
    _written("InferenceService", "spec.accelerator.mig.profile: Required value", accelerator={"mig": {}}),
    _written("InferenceService", "spec.accelerator.mig.profile", accelerator={"mig": {"profile": "automatic"}}),
    _written("SLA", "set at least one of ttft, tpot and e2e", targets={"percentile": 90}),
    _written("SLA", "ttft must not be longer than e2e", priority="P3", targets={"ttft": "2s", "e2e": "1s"}),
    _written("SLA", "P0 means a first token within 100ms", priority="P0", targets={"ttft": "101ms"}),
    _written("SLA", "P1 means a first token within 1s", priority="P1", targets={"ttft": "2s"}),
    _written("SLA", "P2 means a first token within 10s", priority="P2", targets={"ttft": "1m"}),
    _written("SLA", "availability and window come together", availability="99.9%"),
    _written("SLA", "availability and window come together", window="28d"),
    _written("Model", "source must be file:///path", source="ftp://host/file"),
    _written("Model", "source must be file:///path", source="/just/a/path"),
    _written("Model", "source must be file:///path", source="hf://only-owner"),
    _written("Model", "source must be file:///path", source="https://host-without-path"),
    _written("Model", "nodeSelector has no meaning for a pvc:// source", source="pvc://c/p", nodeSelector={"a": "b"}),
    _written("Tenant", "spec.namespaces[1]: Duplicate value", namespaces=["a", "a"]),
    _written(
        "Tenant", "set at least one of requestsPerMinute, tokensPerMinute, concurrency and bytesPerSecond", limits={}
    ),
    _written("Tenant", "burst must be from 1s to 60m", limits={"concurrency": 1, "burst": "500ms"}),
    _written("Tenant", "burst must be from 1s to 60m", limits={"concurrency": 1, "burst": "61m"}),
    _written("Tenant", "spec.apiKeys[1]: Duplicate value", apiKeys=[{"secret": "a"}, {"secret": "a"}]),
    Case(
        "InferenceService: name too long", valid("InferenceService", name="a" * 41), "metadata.name must be at most 40"
    ),
    Case(
        "InferenceService: name with a dot", valid("InferenceService", name="a.b"), "metadata.name must be at most 40"
    ),
    Case("InferenceService: name starts with a digit", valid("InferenceService", name="1a"), "and start with a letter"),
    Case("Model: name with a dot", valid("Model", name="llama-3.1"), "metadata.name must be at most 63"),
    Case("Tenant: name too long", valid("Tenant", name="t" * 64), "metadata.name must be at most 63"),
]

DOWN = {"name": "down", "metric": "unservable", "threshold": {"above": "0"}}
REACTION = {"name": "a", "matchers": [{"label": "alertname", "value": "Down"}]}
HOOK = {"name": "a", "webhook": {"url": "https://a.example"}}
SECRET = {"name": "s", "key": "k"}
WRITTEN += [
    _written("AlertPolicy", "without them nothing ever fires", rules=None),
    _written("AlertPolicy", "set exactly one of threshold, anomaly", rules=[{"name": "a", "metric": "requests"}]),
    _written("AlertPolicy", "set exactly one of threshold, anomaly", rules=[DOWN | {"trend": {"above": "1"}}]),
    _written("AlertPolicy", "burnRate reads the SLA", rules=[{"name": "a", "metric": "requests", "burnRate": {}}]),
    _written("AlertPolicy", "have no history", rules=[{"name": "a", "metric": "unservable", "trend": {"above": "1"}}]),
    _written("AlertPolicy", "exactly one of above and below", rules=[DOWN | {"threshold": {}}]),
    *(
        Case(
            f"AlertPolicy: {kind} over {over}",
            valid("AlertPolicy", rules=[{"name": "a", "metric": "requests", kind: {"above": "1", "over": over}}]),
            "over is 14d at most",
        )
        for kind in ("threshold", "trend")
        for over in ("15d", "337h", "20161m", "99999d")
    ),
    _written(
        "AlertPolicy",
        "exactly one of sigmas and falseAlarms",
        rules=[{"name": "a", "metric": "requests", "anomaly": {}}],
    ),
    _written("AlertPolicy", "Duplicate value", rules=[DOWN, DOWN]),
    _written("AlertPolicy", "action scaleUp needs workers", reactions=[REACTION | {"action": "scaleUp"}]),
    _written("AlertPolicy", "action scaleUp needs workers", reactions=[REACTION | {"workers": 3}]),
    _written("AlertPolicy", "exactly one of webhook, pagerDuty and slack", receivers=[{"name": "a"}]),
    _written("AlertPolicy", "exactly one of url and urlSecret", receivers=[{"name": "a", "webhook": {}}]),
    _written("AlertPolicy", "should match", receivers=[HOOK | {"webhook": {"url": "ftp://a"}}]),
    _written("AlertPolicy", "should match", receivers=[HOOK | {"webhook": {"url": "https://user:pass@a.example"}}]),
    _written("AlertPolicy", "not in receivers", receivers=[HOOK], routes=[{"severity": "P0", "receivers": ["b"]}]),
    _written("AlertPolicy", "not in receivers", routes=[{"severity": "P0", "receivers": ["b"]}]),
    _written(
        "AlertPolicy",
        "ends: Required value",
        silences=[{"name": "a", "matchers": [{"label": "service", "value": "*"}]}],
    ),
    _written("AlertPolicy", "which are set already", rules=[DOWN | {"labels": {"severity": "P9"}}]),
    _written("AlertPolicy", "names of labels are letters", rules=[DOWN | {"labels": {"a-b": "c"}}]),
    _written(
        "AlertPolicy",
        "starts is before ends",
        silences=[
            {
                "name": "a",
                "matchers": [{"label": "b", "value": "c"}],
                "starts": "2026-01-02T00:00:00Z",
                "ends": "2026-01-01T00:00:00Z",
            }
        ],
    ),
    _written(
        "AlertPolicy",
        "spec.silences[0]",
        silences=[{"name": "a", "matchers": [{"label": "b", "value": "c"}], "ends": "2026-13-01T00:00:00Z"}],
    ),
    _written(
        "AlertPolicy",
        "should match",
        silences=[{"name": "a", "matchers": [{"label": "b", "value": "c"}], "ends": "2026-01-01T00:00:00+24:00"}],
    ),
    _written("AlertPolicy", "routingKeySecret: Required value", receivers=[{"name": "a", "pagerDuty": {}}]),
]

IMMUTABLE = [
    ("source", {"source": "https://models.example.com/a.gguf"}, {"source": "https://models.example.com/b.gguf"}),
    ("digest", {"digest": "sha256:" + "a" * 64}, {"digest": "sha256:" + "b" * 64}),
    ("digest", {"digest": "sha256:" + "a" * 64}, {"digest": None}),
    ("format", {"format": "gguf"}, {"format": "safetensors"}),
    ("format", {"format": "gguf"}, {"format": None}),
]


def derived() -> Iterator[Case]:
    """For every field of every spec: the wrong type, and one step beyond each bound, pattern and enumeration."""
    for kind in KINDS:
        for path, schema in _leaves(object_schema(kind.spec), ()):
            for label, value, says in _violations(schema):
                yield Case(f"{kind.kind}: {'.'.join(path)} {label}", _with(kind, path, value), says)
        for name in object_schema(kind.spec).get("required", []):
            obj = valid(kind.kind)
            del obj["spec"][name]
            yield Case(f"{kind.kind}: {name} missing", obj, f"spec.{name}: Required value")
        yield Case(
            f"{kind.kind}: no spec", {k: v for k, v in valid(kind.kind).items() if k != "spec"}, "spec: Required value"
        )


def _leaves(schema: Object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Object]]:
    for name, child in schema.get("properties", {}).items():
        yield (*path, name), child
        if child.get("type") == "object":
            yield from _leaves(child, (*path, name))
        items = child.get("items", {})
        if child.get("type") == "array":
            yield (*path, name, "[]"), items
            yield from _leaves(items, (*path, name, "[]"))


def _violations(schema: Object) -> Iterator[tuple[str, Any, str]]:
    wrong: dict[str, Any] = {"string": 7, "integer": "seven", "boolean": "yes", "array": "list", "object": "text"}
    kind = schema.get("type", "int-or-string")
    if kind in wrong:
        yield "of the wrong type", wrong[kind], "must be of type " + kind
        yield "a list in a list", [[1]], "must be of type "
    if kind == "integer":
        yield "half", 1.5, "must be of type integer"
    if "minimum" in schema:
        yield "below its minimum", schema["minimum"] - 1, f"should be greater than or equal to {schema['minimum']}"
    if "maximum" in schema:
        yield "above its maximum", schema["maximum"] + 1, f"should be less than or equal to {schema['maximum']}"
    if "enum" in schema:
        yield "outside its enumeration", "Nonsense", 'Unsupported value: "Nonsense": supported values: '
    if "pattern" in schema:
        for text in ("!", "ünï", " x "):
            yield f"against its pattern: {text!r}", text, "should match '"
    if kind == "string" and "maxLength" in schema:
        yield "too long", "x" * (schema["maxLength"] + 1), f"Too long: may not be more than {schema['maxLength']} bytes"
    if kind == "int-or-string":
        yield "of the wrong type", [1], "must be of type "
        yield "too long", "1" * 17, "Too long: may not be more than 16 bytes"


def _with(kind: Kind, path: tuple[str, ...], value: Any) -> Object:
    obj = valid(kind.kind)
    at: Any = obj["spec"]
    for step, following in zip(path, (*path[1:], None), strict=True):
        fresh: Any = [] if following == "[]" else {}
        if step == "[]":
            at.append(value if following is None else fresh)
            at = at[-1]
        elif following is None:
            at[step] = value
        else:
            if not isinstance(at.get(step), type(fresh)):
                at[step] = fresh
            at = at[step]
    return obj
