"""The pod of one worker, and the two hashes of it.

The hash of the whole template names the revision: no Deployment ever changes its template. The other hash is of what
was asked for only, in the spec and the Model; it stays when a new release of the operator describes the same worker
otherwise, and `controllers.plans.release` says what follows. What does not make a worker (numbers, scaling, rollout
steps, SLA, Tenant) must never get into either.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controllers.plans.findings import Finding
from controllers.plans.mig.claims import CLAIM, claim_of, template_name
from controllers.plans.mig.sharing import SHARED_RESOURCE
from controllers.plans.model_volume import ModelVolume
from controllers.plans.placement import affinity, spread
from controllers.plans.snapshot import ModelView, Snapshot
from crds import contract
from crds.fields import quantity, seconds
from crds.inference_service import Accelerator, Allocation, Engine, InferenceServiceSpec, Scheduling

Manifest = dict[str, Any]

ANNOTATION_DIGEST: Final = f"{contract.GROUP}/model-digest"
ANNOTATION_RESTARTED: Final = f"{contract.GROUP}/restarted-at"
CONTAINER: Final = "worker"
LOADING_LIMIT_S: Final = 1800
"""A worker may take this long to load its model before the kubelet restarts it."""
_AFTER_DRAIN_S: Final = 10
"""What a worker gets beyond the drain timeout to say goodbye before it is killed."""
_DEAD_S: Final = 1
"""What a worker gets that the kubelet found dead (which makes it two): gateways have moved its requests long before,
and every second more is a second later back."""
_SCRATCH: Final = "/tmp"
_SCRATCH_LIMIT: Final = "1Gi"
"""Beyond it the worker restarts by itself within seconds; the kubelet would evict the pod within a minute or so."""
_HASH_LENGTH: Final = 10


@dataclass(frozen=True, slots=True)
class WorkerImages:
    """Image for each accelerator; None where none is configured."""

    cpu: str | None
    gpu: str | None
    pull_policy: str


@dataclass(frozen=True, slots=True)
class WorkerTemplate:
    """What every worker of one revision looks like. `manifest` carries the revision's label."""

    revision: str
    manifest: Manifest
    asked: str
    """Hash of what was asked for; the same for every release of the operator."""
    claim: Manifest | None = None
    """What of the devices a worker claims; None where the device plugin gives them."""


def check_image(spec: InferenceServiceSpec, images: WorkerImages) -> Finding | None:
    """Without an image for the accelerator there is no worker to describe."""
    if _image(spec.accelerator, images):
        return None
    kind = next(name for name in ("mig", "shared", "gpu") if getattr(spec.accelerator, name))
    return Finding(
        "NoWorkerImage",
        f"No worker image is configured for accelerator '{kind}'; set Helm value workers.gpu.image, "
        "or ask for accelerator.cpu.",
        blocks_start=True,
    )


def worker_template(snapshot: Snapshot, model: ModelView, images: WorkerImages) -> WorkerTemplate:
    """The template of the present spec. `check_image` has found nothing."""
    labels = worker_labels(snapshot.name) | {contract.LABEL_MODEL: model.name}
    annotations = {ANNOTATION_DIGEST: model.digest} if model.digest else {}
    if snapshot.spec.rollout.restarted_at:
        annotations[ANNOTATION_RESTARTED] = snapshot.spec.rollout.restarted_at
    spec = _pod_spec(snapshot, model, images)
    claim = claim_of(snapshot.spec.accelerator) if snapshot.allocation is Allocation.RESOURCE_CLAIMS else None
    claimed = {} if claim is None else {"claim": claim}
    revision = _short_hash({"labels": labels, "annotations": annotations, "spec": spec} | claimed)
    if claim is not None:
        spec["resourceClaims"] = [{"name": CLAIM, "resourceClaimTemplateName": template_name(snapshot.name, revision)}]
    metadata: Manifest = {"labels": labels | {contract.LABEL_REVISION: revision}}
    if annotations:
        metadata["annotations"] = annotations
    asked = _asked(snapshot, model) | claimed
    return WorkerTemplate(revision, {"metadata": metadata, "spec": spec}, _short_hash(asked), claim)


_ASKED: Final = {"accelerator", "engine", "placement"}


def _asked(snapshot: Snapshot, model: ModelView) -> Manifest:
    """Only what somebody said: a default that another release has is nothing that was asked for."""
    spec, rollout = snapshot.spec, snapshot.spec.rollout
    return {
        "spec": spec.model_dump(mode="json", by_alias=True, include=_ASKED, exclude_defaults=True),
        "nodes": [dict(spec.node_selector or {}), [one.dump() for one in spec.tolerations or ()]],
        "drainTimeout": seconds(rollout.drain_timeout),
        "restartedAt": rollout.restarted_at,
        "model": [model.name, model.digest, model.volume.claim_name, model.volume.worker_path],
        "modelNodes": dict(model.node_selector),
    } | ({"priorityClass": spec.priority_class_name} if spec.priority_class_name else {})


def worker_labels(service: str) -> dict[str, str]:
    """Labels of every object that belongs to the workers of `service`."""
    return {
        contract.LABEL_MANAGED_BY: contract.MANAGED_BY,
        contract.LABEL_NAME: "foretide-worker",
        contract.LABEL_COMPONENT: "worker",
        contract.LABEL_SERVICE: service,
    }


def worker_account(service: str) -> str:
    """Name shared by the ServiceAccount, Service, NetworkPolicy and PodDisruptionBudget of `service`."""
    return f"{service}-worker"


def _short_hash(value: Manifest) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]


def _image(accelerator: Accelerator, images: WorkerImages) -> str | None:
    return images.cpu if accelerator.cpu else images.gpu


def _pod_spec(snapshot: Snapshot, model: ModelView, images: WorkerImages) -> Manifest:
    spec = snapshot.spec
    pod: Manifest = {
        "serviceAccountName": worker_account(snapshot.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(seconds(spec.rollout.drain_timeout)) + _AFTER_DRAIN_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": spread(snapshot.name, spec.placement),
        "containers": [_container(snapshot, model, images)],
        "volumes": [
            {"name": "model", "persistentVolumeClaim": {"claimName": model.volume.claim_name, "readOnly": True}},
            {"name": "tmp", "emptyDir": {"sizeLimit": _SCRATCH_LIMIT}},
        ],
    }
    node_selector = {**model.node_selector, **(spec.node_selector or {})}
    if node_selector:
        pod["nodeSelector"] = node_selector
    if wishes := affinity(snapshot.name, spec.placement, spec.accelerator):
        pod["affinity"] = wishes
    if spec.tolerations:
        pod["tolerations"] = [toleration.dump() for toleration in spec.tolerations]
    if spec.priority_class_name:
        pod["priorityClassName"] = spec.priority_class_name
    return pod


def _container(snapshot: Snapshot, model: ModelView, images: WorkerImages) -> Manifest:
    accelerator = snapshot.spec.accelerator
    return {
        "name": CONTAINER,
        "image": _image(accelerator, images),
        "imagePullPolicy": images.pull_policy,
        "args": _arguments(snapshot, model.volume, model.digest),
        "env": [{"name": "HOME", "value": _SCRATCH}],
        "ports": [
            {"name": "http", "containerPort": contract.WORKER_HTTP_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": contract.WORKER_ADMIN_PORT, "protocol": "TCP"},
        ],
        "resources": _resources(accelerator, snapshot.allocation),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "model", "mountPath": contract.WORKER_MODEL_MOUNT, "readOnly": True},
            {"name": "tmp", "mountPath": _SCRATCH},
        ],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"preStop": {"httpGet": _admin(contract.WORKER_PATH_DRAIN)}},
        # Loading ends when requests would be answered; asked each second, because it is on the way to the first token.
        "startupProbe": _probe(contract.WORKER_PATH_READY, period_s=1, timeout_s=2, failures=LOADING_LIMIT_S),
        "readinessProbe": _probe(contract.WORKER_PATH_READY, period_s=2, timeout_s=2, failures=2),
        # Death is 6 s without an answer, or an engine that owes answers and for 6 s makes no progress beyond what it
        # announced: it fails after 4 s, thrice. The worker itself knows about long prefills. The dead drain nothing.
        "livenessProbe": _probe(contract.WORKER_PATH_LIVE, period_s=1, timeout_s=2, failures=3)
        | {"terminationGracePeriodSeconds": _DEAD_S},
    }


def _admin(path: str) -> Manifest:
    return {"path": path, "port": contract.WORKER_ADMIN_PORT, "scheme": "HTTP"}


def _probe(path: str, *, period_s: int, timeout_s: int, failures: int) -> Manifest:
    return {
        "httpGet": _admin(path),
        "periodSeconds": period_s,
        "timeoutSeconds": timeout_s,
        "failureThreshold": failures,
    }


def _arguments(snapshot: Snapshot, volume: ModelVolume, digest: str | None) -> list[str]:
    accelerator = snapshot.spec.accelerator
    on_cpu = accelerator.cpu
    arguments = ["serve", volume.worker_path]
    arguments += ["--served-model-name", snapshot.name]
    arguments += ["--served-model-name", f"{snapshot.namespace}/{snapshot.name}"]
    arguments += ["--port", str(contract.WORKER_HTTP_PORT), "--admin-port", str(contract.WORKER_ADMIN_PORT)]
    arguments += ["--device", "cpu" if on_cpu else "cuda"]
    arguments += ["--threads", str(math.ceil(quantity(accelerator.part.cores)))]
    arguments += ["--drain-timeout-s", f"{seconds(snapshot.spec.rollout.drain_timeout):g}", "--log-format", "json"]
    arguments += ["--scratch", _SCRATCH, "--scratch-bytes", str(int(quantity(_SCRATCH_LIMIT)))]
    if accelerator.shared:
        arguments += ["--gpu-memory-bytes", str(accelerator.shared.gigabytes * 10**9)]
    arguments += _engine_arguments(snapshot.spec.engine)
    if digest and volume.volume_name is None:
        # A cached copy was verified by the node agent; only the worker ever reads a user's own claim.
        arguments += ["--digest", digest]
    return arguments


def _engine_arguments(engine: Engine) -> list[str]:
    settings: Mapping[str, int | None] = {
        "--max-model-len": engine.max_model_len,
        "--max-num-seqs": engine.max_num_seqs,
        "--max-num-batched-tokens": _step_tokens(engine.max_num_seqs),
        "--kv-cache-bytes": None if engine.kv_cache is None else int(quantity(engine.kv_cache)),
        "--kv-swap-bytes": None if engine.kv_swap is None else int(quantity(engine.kv_swap)),
    }
    arguments = [text for flag, value in settings.items() if value is not None for text in (flag, str(value))]
    return arguments if engine.scheduling is None else arguments + _scheduling_arguments(engine.scheduling)


def _scheduling_arguments(scheduling: Scheduling) -> list[str]:
    waits = (("--min-wait-s", scheduling.min_wait), ("--max-wait-s", scheduling.max_wait))
    settings: Mapping[str, str | int | None] = {
        "--scheduling-policy": scheduling.policy,
        "--batching": scheduling.batching,
        "--packing": scheduling.packing,
        "--min-batch": scheduling.min_batch,
        "--max-batch": scheduling.max_batch,
        "--batch-base": scheduling.batch_base,
        **{flag: f"{seconds(wait):g}" for flag, wait in (*waits, ("--ageing-s", scheduling.ageing)) if wait},
    }
    return [text for flag, value in settings.items() if value is not None for text in (flag, str(value))]


def _step_tokens(max_num_seqs: int | None) -> int | None:
    """A step must hold one token of every running request and some of a prompt; up to here the default does."""
    return None if max_num_seqs is None or max_num_seqs < 128 else 2 * max_num_seqs


def _resources(accelerator: Accelerator, allocation: Allocation) -> Manifest:
    """CPU is requested and not limited: throttling stretches every token. Memory is limited to what is requested."""
    part = accelerator.part
    if allocation is Allocation.RESOURCE_CLAIMS and claim_of(accelerator) is not None:
        host = {"cpu": part.cores, "memory": part.memory}
        return {"requests": host, "limits": {"memory": part.memory}, "claims": [{"name": CLAIM}]}
    devices: dict[str, str] = {}
    if accelerator.gpu:
        devices["nvidia.com/gpu"] = str(accelerator.gpu.count)
    if accelerator.mig:
        devices[f"nvidia.com/mig-{accelerator.mig.profile}"] = "1"
    if accelerator.shared:
        devices[SHARED_RESOURCE] = "1"
    return {
        "requests": {"cpu": part.cores, "memory": part.memory, **devices},
        "limits": {"memory": part.memory, **devices},
    }
