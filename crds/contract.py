"""Names that operator, gateway and worker must agree on: labels, ports, paths, arguments and metrics.

Everything here is wire format between processes of possibly different releases. Change a value only with
an upgrade note; never compute one of these strings anywhere else.
"""

from __future__ import annotations

from typing import Final

GROUP: Final = "foretide.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "foretide"

# --- labels and annotations on the objects we write -------------------------------------------------------------
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
MANAGED_BY: Final = "foretide"
LABEL_SERVICE: Final = f"{GROUP}/inference-service"
"""Name of the InferenceService; on every child. Kubernetes copies it from the Service to its EndpointSlices."""
LABEL_SERVICE_NAME: Final = "kubernetes.io/service-name"
"""On EndpointSlices: the Service that they belong to."""
LABEL_REVISION: Final = f"{GROUP}/revision"
LABEL_MODEL: Final = f"{GROUP}/model"
LABEL_TENANT: Final = f"{GROUP}/tenant"
LABEL_TOPOLOGY_MANAGER: Final = f"{GROUP}/topology-manager-policy"
"""On a Node, by a person: its kubelet's `--topology-manager-policy`, which no other label tells."""
ANNOTATION_APPLIED: Final = f"{GROUP}/applied"
"""Hash of the manifest last applied; only spares writes, losing it costs one write."""
ANNOTATION_ASKED: Final = f"{GROUP}/asked"
"""On a revision's Deployment: hash of what was asked for, which outlives releases of the operator."""
ANNOTATION_DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"

FINALIZER_SERVICE: Final = f"{GROUP}/drain"
"""On InferenceService: streams end before the Service, the policy and the account go."""
FINALIZER_MODEL: Final = f"{GROUP}/in-use"
"""On Model: its volume outlives the workers that read it."""

FINALIZER_POOL: Final = f"{GROUP}/repartition"
"""On GPUPool: a node that is being cut anew is brought to an end before the pool goes."""

FIELD_MANAGER: Final = "foretide"

# --- worker -----------------------------------------------------------------------------------------------------
WORKER_HTTP_PORT: Final = 8000
"""OpenAI API; reached by gateways only."""
WORKER_ADMIN_PORT: Final = 8001
"""Health, metrics and drain; reached by kubelet, operator and Prometheus."""
WORKER_PATH_LIVE: Final = "/health/live"
"""200 while the engine makes progress or has nothing to do, else 503."""
WORKER_PATH_READY: Final = "/health/ready"
"""200 when a request would be answered, else 503 (loading, draining, dead engine)."""
WORKER_PATH_METRICS: Final = "/metrics"
WORKER_PATH_DRAIN: Final = "/drain"
"""GET (a preStop hook can send nothing else): refuse new requests from now on; answers at once. Idempotent."""
WORKER_PATH_LOAD: Final = "/load"
"""GET, on the HTTP port, asked by every gateway several times a second. 200 with a JSON object, whatever the state:
`model`; `ready`, and `message`, why not; `draining`; `running`, `waiting` and `max_num_seqs`, choices; `kv_usage`, 0 to
1; `utilisation`, the share of the last seconds in which the engine computed; `steps` so far; `stalled_s`, for how long
the engine has owed an answer without a sign of progress, 0 while it owes none; `step`, null or what the engine said
before something long: `{"kind": "prefill", "expected_s": 2.5}`; and `prefix_hit_tokens` of `prefix_queried_tokens`."""
WORKER_PATH_PROFILE: Final = "/profile"
"""POST: measures the engine, which takes seconds, and answers with `forecasting.profile`'s numbers as JSON. 409 while
clients ask for something: they go first; 503 while there is no engine to measure."""
WORKER_MODEL_MOUNT: Final = "/models"
WORKER_EXIT_REFUSED: Final = 2
"""Exit code of a worker that says what is wrong with its flags or its model."""
WORKER_EXIT_SCRATCH_FULL: Final = 3
"""Exit code of a worker whose scratch volume held more than it may."""

HEADER_DRAINING: Final = "x-foretide-draining"
"""On a worker's 503: this request was not started and may be sent to another worker."""
HEADER_ENGINE_ENDED: Final = "x-foretide-engine-ended"
"""On a worker's 500: its engine has ended, so this is no answer of the model; another worker may have one."""
HEADER_REQUEST_ID: Final = "x-request-id"
HEADER_REVISION: Final = "x-foretide-revision"
"""On every answer of the gateway that a worker produced."""

HEADER_FALLBACK: Final = "x-foretide-fallback"
"""On an answer that a fallback gave: `demo/chat-small; reason=no_endpoint`, and `; max_tokens=64`
where it was limited."""

HEADER_PROMPT_TOKENS: Final = "x-foretide-prompt-tokens"
"""On a worker's answers: tokens of the prompt, which a stream tells nowhere else."""

# How a request stands among others: gateway → worker, whose HTTP port no client reaches. A value that cannot be read is
# answered with 400 and the header's name; an absent one has the default told here.
HEADER_CLASS: Final = "x-foretide-class"
"""`P0` to `P3`, as an SLA's; absent: P2."""
HEADER_TENANT: Final = "x-foretide-tenant"
"""Whose share the tokens count against: 1 to 256 printable characters, opaque; absent: shared by all without one."""
HEADER_CACHE_SALT: Final = "x-foretide-cache-salt"
"""Only requests of the same one share cached prefixes and grammars: 1 to 256 printable characters, opaque, beside what
a body says in `cache_salt`; absent: shared by all without one."""
HEADER_WEIGHT: Final = "x-foretide-weight"
"""The tenant's share against those of others, a decimal number above 0, at most 1000000; absent: 1."""
HEADER_DEADLINE_MS: Final = "x-foretide-deadline-ms"
"""Milliseconds from now until the answer is of no more use, a whole number above 0; absent: none."""
HEADER_TTFT_TARGET_MS: Final = "x-foretide-ttft-target-ms"
"""Milliseconds from now in which the first token is due, a whole number above 0; absent: as the class has it."""

WORKER_SLOTS_CPU: Final = 32
WORKER_SLOTS_GPU: Final = 256
"""Requests that a worker runs at the same time when its `--max-num-seqs` is not given."""

# Streams that outlive their workers: what the gateway and a worker say to each other about one streamed answer.
HEADER_STREAM: Final = "x-foretide-stream"
"""On a streamed request: `<seed> <id> <created>`, a number below 2**64, 1 to 64 letters and digits, Unix seconds. The
gateway chooses them, so that every worker that has a hand in the answer gives the same one; it also asks for a journal.
On the answer: the worker's fingerprint, and the promise of a journal."""
HEADER_CONTINUE: Final = "x-foretide-continue"
"""On a streamed request that another worker has begun: `<fingerprint> <bytes>`. The body is that many bytes of the
original one and then the journal. 409 from a worker with another fingerprint, 400 for a journal that cannot be.

The journal is what the worker wrote as comments of the event stream, without the colons, in order. A comment ends each
write: what stands before it and the comment are passed on together or not at all. It is

    [<choice>=][@<cached tokens of the prompt> ]<token> <token> …[s|l]  for each choice with news, joined by `;`
    (nothing)          the choices are opened
    .[<timing>]        the answer is complete, be it by an error that every worker would give; with where its time
                       went if the request is traced
    !<reason>          this worker cannot go on, another one can; never part of a journal

`<choice>=` is left out for choice 0; `s` and `l` say that the engine ended the choice there, by a stop token or by its
length.
"""
HEADER_TIMING: Final = "server-timing"
"""On a worker's whole answer to a request whose `traceparent` is sampled: `queue;dur=1.2, prefill;dur=200.1;desc=812,
decode;dur=1050.3;desc=41`: milliseconds, prompt tokens, engine steps. A journal tells it beside its last mark."""
JOURNAL_COMPLETE: Final = b"."
JOURNAL_LEFT: Final = b"!"
LEFT_DRAINING: Final = b"draining"
LEFT_ENGINE: Final = b"engine_failed"

METRIC_RUNNING: Final = "vllm:num_requests_running"
METRIC_WAITING: Final = "vllm:num_requests_waiting"
METRIC_KV_USAGE: Final = "vllm:kv_cache_usage_perc"
METRIC_PROMPT_TOKENS: Final = "vllm:prompt_tokens_total"
METRIC_GENERATION_TOKENS: Final = "vllm:generation_tokens_total"
METRIC_REQUESTS_ENDED: Final = "vllm:request_success_total"

METRIC_ANSWER_TOKENS: Final = "foretide_worker_answer_tokens"
"""Histograms and a counter of what answers are like (docs/quality.md); the operator reads their sums and counts."""
METRIC_ANSWER_REPETITION: Final = "foretide_worker_answer_repetition"
METRIC_ANSWER_SURPRISE: Final = "foretide_worker_answer_surprise_nats"
METRIC_ANSWER_REFUSALS: Final = "foretide_worker_answer_refusals_total"

# --- gateway ----------------------------------------------------------------------------------------------------
GATEWAY_HTTP_PORT: Final = 8080
GATEWAY_ADMIN_PORT: Final = 8081
"""Health, metrics, drain and probes; reached by kubelet, operator and Prometheus, never by clients."""
GATEWAY_PEER_PORT: Final = 8082
"""UDP, one port a process from this one on: gateways agree on limits. Reached by gateways only."""
GATEWAY_PEERS_SERVICE: Final = "foretide-gateway-peers"
"""Headless Service of the system namespace by which gateways find each other."""
GATEWAY_PICKER_PORT: Final = 9002
"""Endpoint picker: Envoy's external processing protocol, for proxies that ask us where to send a request."""
GATEWAY_PATH_LIVE: Final = "/health/live"
GATEWAY_PATH_READY: Final = "/health/ready"
GATEWAY_PATH_METRICS: Final = "/metrics"
GATEWAY_PATH_PROBE: Final = "/probe/{namespace}/{service}"
"""POST: sends one one-token request along the path a client's would take. 200 `{"revision": …, "endpoint": …,
"latency_s": …}` or 503 `{"reason": CamelCase, "message": sentence}`."""
GATEWAY_PATH_DEMAND: Final = "/demand"
"""GET: `{"demo/chat": {"open": 4, "waiting": 3, "idle_s": 0.0}, …}` of every service that may sleep: open requests of
clients, those of them that wait for a worker, and for how long none was open. Probes do not count."""
GATEWAY_PATH_ENDPOINTS: Final = "/endpoints"
"""GET: `{"demo/chat": {"chat-7f3c9-x2": {"state": "lost", "reason": "hung", "since_s": 2.4, "message": …,
"times": 0}}}`: what is held against endpoints that the cluster calls ready. States: `lost` (reason: the evidence),
`ejected` and, until it has all of its share again, `returning` (reason: that of the ejection; `times`: how often in a
row)."""
GATEWAY_PATH_ASK: Final = "/ask/{namespace}/{service}/{revision}"
"""POST: a body for `/v1/completions` of a worker of exactly this revision, whatever the traffic split; its answer as it
is. 503 `{"reason": CamelCase, "message": sentence}` when there is none that answers. Counts nowhere."""
METRIC_GATEWAY_ARRIVALS: Final = "foretide_gateway_arrivals_total"
"""Requests that named a service and were within their Tenant's limits, by namespace and service."""
METRIC_GATEWAY_COMPLETED: Final = "foretide_gateway_completed_total"
"""Those of them that a worker answered in full, counted when they end; the two below count tokens of these."""
METRIC_GATEWAY_INPUT_TOKENS: Final = "foretide_gateway_input_tokens_total"
METRIC_GATEWAY_OUTPUT_TOKENS: Final = "foretide_gateway_output_tokens_total"
METRIC_GATEWAY_GOOD: Final = "foretide_gateway_good_requests_total"
"""Completed requests that met every target of their SLA."""

# By namespace, service and revision: what canaries are judged by. A service has them while more than one revision is in
# its `status.traffic`; copies of mirrored requests count as well, probes never.
METRIC_REVISION_REQUESTS: Final = "foretide_gateway_revision_requests_total"
"""Requests that a revision ended: answered, refused or failed for good; not those that their client gave up."""
METRIC_REVISION_ERRORS: Final = "foretide_gateway_revision_errors_total"
"""Those of them that were the revision's fault: a status of 500 and more, a lost connection, a broken stream. An
attempt that was retried on another worker counts here and in the requests."""
METRIC_REVISION_TTFT: Final = "foretide_gateway_revision_ttft_seconds"
"""Histogram: from the moment a stream's request was sent to its worker until its first event."""
METRIC_REVISION_TPOT: Final = "foretide_gateway_revision_tpot_seconds"
"""Histogram: mean time of an output token after the first, one observation for each completed stream."""
METRIC_REVISION_OUTPUT_TOKENS: Final = "foretide_gateway_revision_output_tokens"
"""Histogram: generated tokens, one observation for each completed request."""
REVISION_BOUND_STEP: Final = 1.2**0.5
"""Each bound of these histograms over the one below: a shift by a fifth is a shift by two buckets."""
REVISION_TTFT_BOUNDS_S: Final = tuple(0.005 * REVISION_BOUND_STEP**n for n in range(104))
"""5 ms to 60 s."""
REVISION_TPOT_BOUNDS_S: Final = tuple(0.001 * REVISION_BOUND_STEP**n for n in range(102))
"""1 ms to 10 s."""
REVISION_OUTPUT_TOKENS_BOUNDS: Final = tuple(REVISION_BOUND_STEP**n for n in range(124))
"""1 to 74,000 tokens."""

# --- operator ---------------------------------------------------------------------------------------------------
METRIC_SERVICE_WORKERS_MISSING: Final = "foretide_service_workers_missing"
"""Wanted workers that are not ready, by namespace and service."""
METRIC_SERVICE_UNSERVABLE: Final = "foretide_service_unservable"
"""1 while a request would not be answered, by namespace and service."""
METRIC_SERVICE_QUALITY_DRIFT: Final = "foretide_service_quality_drift"
"""1 while answers are unlike those of the baseline, by namespace and service."""
METRIC_ANOMALY: Final = "foretide_anomaly_surprise"
"""-log10 of how probable the last ten minutes of a metric were, by namespace, service, metric and direction."""
METRIC_REMEDIES: Final = "foretide_remedies"
"""Of the operator: remedies by service, cause, remedy and outcome (Applied, Helped, NotHelped, Undone)."""
METRIC_ALERTS: Final = "foretide_alerts"
"""Alerts of policies, by namespace, policy, severity and state."""
OPERATOR_PATH_ALERTS: Final = "/alertmanager/webhook"
"""POST of Alertmanager's webhook message to the operator that leads, with a bearer token."""
LABEL_ALERT_RECEIVER: Final = f"{GROUP}/alert-receiver"
"""`"true"` on each Secret that an AlertPolicy may name; the operator reads no other for it."""
LABEL_POLICY: Final = f"{GROUP}/alert-policy"
"""Name of the AlertPolicy that a rule file was made from."""

# --- API keys: operator → gateway -------------------------------------------------------------------------------
SECRET_KEYRING: Final = "foretide-keyring"
"""Secret in the system namespace, written by the operator, watched by the gateway. Holds two entries:
`pepper`, 32 random bytes that key the hash, made once; and `keyring.json`,
`{"acme": ["<hex>", …], …}`: tenant name → `hmac_sha256(pepper, api_key)` of each valid key."""
KEYRING_PEPPER: Final = "pepper"
KEYRING_HASHES: Final = "keyring.json"
LABEL_LEADER: Final = f"{GROUP}/leader"
"""`true` on the operator's pod that leads: the dashboard's Service selects it."""
LABEL_API_KEY: Final = f"{GROUP}/api-key"
"""`"true"` on each Secret of the system namespace that holds API keys; the operator reads no other."""

# --- GPU pools: nodes -------------------------------------------------------------------------------------------
ANNOTATION_MIG_GEOMETRY: Final = f"{GROUP}/mig-geometry"
"""On a Node, from the GPU agent: how the driver says its GPUs can be cut; see `controllers.plans.mig.geometry`."""
ANNOTATION_MIG_LAYOUT: Final = f"{GROUP}/mig-layout"
"""On a Node of a GPUPool: the layout of each of its GPUs, as last asked of the MIG manager; see `plans.mig.records`."""
ANNOTATION_REPARTITION: Final = f"{GROUP}/repartition"
"""On a Node that is being cut anew: which step, since when, and the way back. All that a restart needs."""
ANNOTATION_FAULTS: Final = f"{GROUP}/gpu-faults"
"""On a Node, from the GPU agent: its last GPU faults; see `plans.mig.faults`."""
ANNOTATION_QUARANTINE: Final = f"{GROUP}/quarantine"
"""On a Node of a GPUPool: out of use after a GPU fault, or on probation."""
ANNOTATION_INTERRUPTION: Final = f"{GROUP}/interruption"
"""On a Node of a GPUPool that will be taken away: since when that is known, and whether we cordoned it."""
LABEL_EVACUATE: Final = f"{GROUP}/evacuate"
"""`true` on a Node whose workers should move to another one before it is cut anew."""
