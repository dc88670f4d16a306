"""Model: where weights come from, that they are what they should be, where they lie, and how fast they serve."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from crds.conditions import Condition
from crds.fields import SELECTOR_RULES, ListMap, Part, Rule


class ModelFormat(StrEnum):
    GGUF = "gguf"
    SAFETENSORS = "safetensors"


class ModelSpec(Part):
    """A Model is one set of weights for good: to serve others, make another Model and point the service at it."""

    rules: ClassVar = (
        Rule("has(oldSelf.digest) ? has(self.digest) && self.digest == oldSelf.digest : true",
             "digest is immutable once set: make another Model and point the InferenceService at it"),
        Rule("has(oldSelf.format) ? has(self.format) && self.format == oldSelf.format : true",
             "format is immutable once set: make another Model and point the InferenceService at it"),
        Rule("!(has(self.nodeSelector) && self.source.startsWith('pvc://'))",
             "nodeSelector has no meaning for a pvc:// source: the claim decides where it can be mounted"),
    )  # fmt: skip
    source: Annotated[
        str,
        Rule("self == oldSelf", "source is immutable: make another Model and point the InferenceService at it"),
        Rule(
            "self.matches('^(file:///|pvc://[a-z0-9]|https?://[^/]+/|hf://[^/]+/[^/]+|s3://[^/]+/|oci://[^/]+/).*')",
            "source must be file:///path, pvc://claim/path, http(s)://host/path, hf://owner/repo[@revision]/file, "
            "s3://bucket/key or oci://registry/repository[:tag|@digest]",
        ),
        Field(description="URI of the weights.", min_length=6, max_length=2048),
    ]
    digest: Annotated[
        str | None,
        Field(
            description="Digest that the file must have. Without one the first copy decides for all nodes.",
            pattern=r"^sha256:[0-9a-f]{64}$",
            max_length=71,
        ),
    ] = None
    format: Annotated[
        ModelFormat | None, Field(description="gguf or safetensors; found out from the file when left out.")
    ] = None
    node_selector: Annotated[
        dict[str, str] | None,
        Field(description="Labels of the nodes that keep a copy; all nodes when left out.", max_length=32),
        *SELECTOR_RULES,
    ] = None


class CopyState(StrEnum):
    """The life of one node's copy, in order; `Failed` is retried, `Evicted` comes back when a worker asks for it."""

    PENDING = "Pending"
    DOWNLOADING = "Downloading"
    VERIFYING = "Verifying"
    CACHED = "Cached"
    FAILED = "Failed"
    EVICTED = "Evicted"


class NodeCopy(Part):
    """The copy on one node; written by that node's agent, each agent its own item."""

    name: Annotated[str, Field(description="Name of the node.", max_length=253)]
    state: Annotated[CopyState, Field(description="Where the copy is in its life.")]
    bytes: Annotated[int, Field(description="Bytes on the node's disk.", ge=0)] = 0
    total_bytes: Annotated[int | None, Field(description="Bytes of the whole file, when known.", ge=0)] = None
    bytes_per_second: Annotated[int | None, Field(description="Rate of a download under way.", ge=0)] = None
    digest: Annotated[str | None, Field(description="Digest of a verified copy.", max_length=71)] = None
    format: Annotated[ModelFormat | None, Field(description="Format found in a verified copy.")] = None
    message: Annotated[str | None, Field(description="What went wrong and what to do.", max_length=1024)] = None


Microseconds = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,6})?$", max_length=19)]
"""A time as a decimal number: `7000.25`."""


class MeasuredProfile(Part):
    """How fast one worker is with this Model on one accelerator, as its own benchmark found.

    A step with B decoding sequences, P prefill tokens and KV tokens in the cache takes
    max(alpha + gamma × KV, delta × (B + P)) + beta × B + request × requests that begin.
    """

    accelerator: Annotated[str, Field(description="Accelerator of the worker, for example gpu 1.", max_length=64)]
    measured: Annotated[str, Field(description="When (RFC 3339).", json_schema_extra={"format": "date-time"})]
    alpha_us: Annotated[Microseconds, Field(description="Of a step, reading the weights, in microseconds.")]
    beta_us: Annotated[Microseconds, Field(description="For each decoding sequence.")]
    gamma_us: Annotated[Microseconds, Field(description="For each token in the KV cache.")]
    delta_us: Annotated[Microseconds, Field(description="For each token computed.")]
    request_us: Annotated[Microseconds, Field(description="For each request that begins.")]
    kv_tokens: Annotated[int, Field(description="Tokens that the KV cache holds.", ge=1)]
    max_sequences: Annotated[int, Field(description="Requests that run at the same time.", ge=1)]
    chunk_tokens: Annotated[int, Field(description="Tokens that one step computes at most.", ge=1)]


class ModelStatus(Part):
    """What is known of the weights; conditions and sums by the operator, `nodes` by the agents."""

    observed_generation: Annotated[int | None, Field(description="metadata.generation that this status speaks of.")] = (
        None
    )
    conditions: Annotated[
        list[Condition] | None,
        ListMap(("type",)),
        Field(description="Ready and, while they apply, Reconciling and Stalled.", max_length=16),
    ] = None
    format: Annotated[ModelFormat | None, Field(description="Format found in the file.")] = None
    digest: Annotated[str | None, Field(description="Digest of the verified file.", max_length=71)] = None
    size_bytes: Annotated[int | None, Field(description="Size of the weights.", ge=0)] = None
    size: Annotated[str | None, Field(description="Size of the weights, for people.", max_length=16)] = None
    verified: Annotated[bool | None, Field(description="Whether digest and format were checked.")] = None
    cached: Annotated[
        str | None, Field(description="Nodes with a verified copy, of those that should have one.", max_length=16)
    ] = None
    state: Annotated[str | None, Field(description="What is going on, for people.", max_length=256)] = None
    used_by: Annotated[
        list[str] | None, Field(description="InferenceServices that name this Model.", max_length=1000)
    ] = None
    profiles: Annotated[
        list[MeasuredProfile] | None,
        ListMap(("accelerator",)),
        Field(description="How fast a worker is, for each accelerator that served it.", max_length=32),
    ] = None
    nodes: Annotated[
        list[NodeCopy] | None, ListMap(("name",)), Field(description="The copy on each node.", max_length=5000)
    ] = None
