"""docs/reference/http.md: every URL of every process, as their routers have them, and the gateway's refusals.

A URL that is not described here, and a description without a URL, are errors: whoever adds one says it here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from aiohttp import web

import gateway.errors
from controllers.build import build
from controllers.dashboard.server import DashboardServer
from controllers.gpu_agent.admin import Admin as GpuAdmin
from controllers.gpu_agent.usage import UsageMetrics
from controllers.model_cache.admin import Admin as CacheAdmin
from controllers.runtime.health import Health
from controllers.runtime.metrics import Metrics
from controllers.runtime.queue import ReconcileQueue
from controllers.runtime.server import AdminServer
from controllers.settings import Settings
from gateway import requests
from gateway.admin import Admin, Readiness
from gateway.errors import GatewayError
from kube.events import Recorder
from tests.fakes import FakeClient
from tests.generated_metrics import idle_cache
from tests.handbook.tables import code, made, prose, table
from worker_image.server.admin import admin_app
from worker_image.server.api import api_app
from worker_image.server.api_types import CompletionRequest, GenerationRequest
from worker_image.server.chat_types import ChatRequest
from worker_image.server.state import ServerState

URL = tuple[str, str]
"""Method and path."""

_KUBELET: Final = {
    ("GET", "/metrics"): "[Metrics](../metrics.md) in Prometheus' text format.",
    ("GET", "/healthz"): "200 while the process does its work; else 503, with a line for each problem.",
}

URLS: Final[dict[str, dict[URL, str]]] = {
    "Gateway, for clients (port 8080)": {
        ("POST", "/v1/chat/completions"): "OpenAI's chat completions; `model` is the name of an InferenceService.",
        ("POST", "/v1/completions"): "OpenAI's completions.",
        ("GET", "/v1/models"): "The services that the key may use.",
        ("GET", "/v1/models/{model}"): "One of them.",
    },
    "Gateway, for the cluster (port 8081)": {
        ("GET", "/health/live"): "200 while its loop turns.",
        ("GET", "/health/ready"): "200 when it knows keys and services and the other gateways count it in.",
        ("GET", "/metrics"): "[Metrics](../metrics.md) in Prometheus' text format.",
        ("GET", "/demand"): "Of services that may sleep: open and waiting requests, seconds without one.",
        ("GET", "/endpoints"): "What it holds against workers, by service; the operator asks each second.",
        (
            "POST",
            "/probe/{namespace}/{service}",
        ): "One token from the service: its revision, worker and latency, or 503.",
        (
            "POST",
            "/ask/{namespace}/{service}/{revision}",
        ): "One request to a worker of that revision, for a canary's fixed prompts.",
    },
    "Worker, for gateways (port 8000)": {
        ("POST", "/v1/chat/completions"): "OpenAI's chat completions; fields below.",
        ("POST", "/v1/completions"): "OpenAI's completions; fields below.",
        ("GET", "/v1/models"): "The names of the model.",
        ("GET", "/v1/models/{name}"): "One of them.",
        ("POST", "/tokenize"): "A prompt or messages → token ids, as vLLM answers.",
        ("POST", "/detokenize"): "Token ids → text.",
        ("GET", "/load"): "How full it is, whether its engine moves, and what it announced before a long step.",
        ("GET", "/version"): "The release.",
        ("GET", "/health"): "200 when a request would be answered.",
    },
    "Worker, for the cluster (port 8001)": {
        ("GET", "/health/live"): "200 while the engine makes progress or owes nothing.",
        ("GET", "/health/ready"): "200 when a request would be answered.",
        ("GET", "/metrics"): "[Metrics](../metrics.md), with vLLM's names where there are such.",
        ("GET", "/drain"): "New requests are refused from then on; open ones end.",
        ("POST", "/profile"): "Measures the engine with requests of its own; 409 while clients ask for something.",
    },
    "Operator (port 8082)": {
        **_KUBELET,
        ("GET", "/readyz"): "200 when its caches are complete.",
        (
            "GET",
            "/decisions/{namespace}/{service}",
        ): "Recorded scaling decisions, a JSON object a line, of the one that leads; `?since=`, `?limit=`.",
        (
            "POST",
            "/alertmanager/webhook",
        ): "Takes an Alertmanager's message, with the token of `alerting.webhookSecret`.",
    },
    "Dashboard, of the operator that leads (port 8084)": {
        ("GET", "/"): "The page.",
        (
            "GET",
            "/api/v1/session",
        ): "Who is asking. All of `/api/` wants a Kubernetes token as `Authorization: Bearer`.",
        ("GET", "/api/v1/services"): "The fleet, in pages: `?search=`, `?sort=`, `?descending=true`, `?page=`.",
        (
            "GET",
            "/api/v1/services/{namespace}/{name}",
        ): "One service: spec, status, decisions, budget, cost, health, alerts.",
        ("GET", "/api/v1/services/{namespace}/{name}/chart"): "Its load, forecast and workers over time.",
        ("GET", "/api/v1/tenants"): "The tenants.",
        ("GET", "/api/v1/pools"): "The GPU pools and their nodes.",
    },
    "Node agent (port 8083)": _KUBELET,
    "GPU agent (port 8085)": _KUBELET,
}

HEADERS: Final = {
    "authorization": ("asked", "`Bearer` and a key of a Tenant."),
    "x-request-timeout": (
        "asked",
        "Seconds after which the answer is of no use; never beyond the gateway's own deadline.",
    ),
    "x-foretide-priority": ("asked", "`P0` to `P3`: a lower class than the service's; never a higher one."),
    "x-foretide-session": ("asked", "With routing policy `session`: what keeps together."),
    "x-foretide-explain": ("asked", "`true`: the answer says why its worker was chosen."),
    "traceparent": ("asked", "The request is part of this trace."),
    "x-request-id": ("both", "Name of the request in all logs; made up where the client gives none."),
    "x-foretide-decision": ("answered", "Why its worker was chosen, with the arithmetic."),
    "x-foretide-revision": ("answered", "Revision of the worker that answered."),
    "x-foretide-fallback": ("answered", "Which fallback answered."),
    "x-ratelimit-*": ("answered", "Limits of the Tenant, what is left of them, and when they are full again."),
    "retry-after": ("answered", "Seconds after which a refused request may be sent again."),
}
"""Of the gateway, for clients."""

TEXT: Final = """\
# HTTP API

{made}
Clients speak to the gateway alone. It takes what OpenAI's clients send and passes the body on to a worker, so the
fields of a request are the worker's. [The worker](../worker.md) says what they mean, [Tenants](../tenants.md) when the
gateway refuses.
"""


def page() -> str:
    """The whole file. Raises AssertionError where routers and descriptions differ."""
    found = asyncio.run(_routers())
    for process, described in URLS.items():
        assert set(described) == found[process], f"{process}: {set(described) ^ found[process]}"
    parts = [TEXT.format(made=made("the routers of the processes, and tests/handbook/http_page.py"))]
    parts += [f"## {process}\n\n{_urls(described)}" for process, described in URLS.items()]
    parts += ["## Headers of the gateway\n", table(("header", "", "says"), _headers())]
    parts += ["## Refusals of the gateway\n", _REFUSALS, table(("status", "code", "type", "when"), _refusals())]
    parts += ["## Fields of requests\n", _FIELDS, *_fields()]
    return "\n".join(parts)


_REFUSALS: Final = """\
The body is `{"error": {"message", "type", "param", "code"}}`; the message is a sentence that says what to do.
"""
_FIELDS: Final = """\
A field that is not listed is refused by name. Those in **bold** are required.
"""


def _urls(described: Mapping[URL, str]) -> str:
    return table(("", "says"), ((code(f"{method} {path}"), says) for (method, path), says in described.items()))


def _headers() -> Iterator[tuple[str, ...]]:
    for name, (way, says) in HEADERS.items():
        yield code(name), way, says


# --- what the processes serve -----------------------------------------------------------------------------------------
async def _routers() -> dict[str, set[URL]]:
    state, nothing = cast("ServerState", None), cast("Any", None)
    gpus = GpuAdmin(nothing, nothing, UsageMetrics())
    found = [
        _of_the_gateway(),
        await _of_its_admin(),
        _routes(api_app(state)),
        _routes(admin_app(state)),
        _routes(_operator()),
        _routes(DashboardServer(nothing, nothing, nothing, Path("/nowhere")).app()),
        _routes(CacheAdmin(idle_cache(), nothing, lambda: 0.0, "", 0).app()),
        _routes(gpus.app()),
    ]
    return dict(zip(URLS, found, strict=True))


def _routes(app: web.Application) -> set[URL]:
    """Without HEAD, which comes along with each GET."""
    urls = ((route.method, route.resource.canonical) for route in app.router.routes() if route.resource)
    return {(method, path) for method, path in urls if method != "HEAD"}


def _of_the_gateway() -> set[URL]:
    models = requests._MODELS.decode()
    return {*(("POST", path.decode()) for path in requests._POSTS), ("GET", models), ("GET", models + "/{model}")}


async def _of_its_admin() -> set[URL]:
    nothing = cast("Any", None)
    admin = Admin(Readiness(), nothing, nothing, nothing)
    await admin.start("127.0.0.1", 0)
    assert admin._runner is not None
    try:
        return _routes(admin._runner.app)
    finally:
        await admin.stop()


def _operator() -> web.Application:
    client, queue = FakeClient(), ReconcileQueue()
    assembly = build(client, Settings(), queue, Recorder(client, controller="docs", instance="docs"))
    return AdminServer("", 0, Health(queue, {}), Metrics(), assembly.pages, assembly.hooks).app()


# --- refusals ---------------------------------------------------------------------------------------------------------
def _refusals() -> Iterator[tuple[str, ...]]:
    """The tree of the module's docstring says when; the classes say what is answered."""
    tree = (gateway.errors.__doc__ or "") + "\n"
    for name, when in re.findall(r"[├└]── (\w+) +\d{3}(?:: ([^\n]*))?\n", tree):
        error = getattr(gateway.errors, name)
        assert issubclass(error, GatewayError), name
        said = when or {"WrongMethod": "the URL takes another method", "DeadlineExceeded": "it took too long"}[name]
        yield str(error.status), code(error.code or ""), code(error.type), prose(said)


# --- fields -----------------------------------------------------------------------------------------------------------
def _fields() -> Iterator[str]:
    shared = GenerationRequest.model_fields.keys()
    for title, kind, names in (
        ("Both", GenerationRequest, [*shared]),
        ("Chat completions", ChatRequest, [name for name in ChatRequest.model_fields if name not in shared]),
        ("Completions", CompletionRequest, [name for name in CompletionRequest.model_fields if name not in shared]),
    ):
        schema = kind.model_json_schema()
        rows = ((_named(name, schema), _value(schema["properties"][name], schema)) for name in names)
        yield f"### {title}\n\n" + table(("field", "value"), rows)


def _named(name: str, schema: Mapping[str, Any]) -> str:
    return f"**{code(name)}**" if name in schema.get("required", ()) else code(name)


def _value(field: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """In words: what a client may send."""
    if "$ref" in field:
        return _value(root["$defs"][field["$ref"].rpartition("/")[2]], root)
    branches = [_value(one, root) for one in field.get("anyOf", ()) if one.get("type") != "null"]
    if branches:
        return " or ".join(dict.fromkeys(branches))
    if "const" in field or "enum" in field:
        words = field.get("enum") or [field["const"]]
        return ", ".join(
            code(str(word).lower() if isinstance(word, bool) else f'"{word}"' if isinstance(word, str) else str(word))
            for word in words
        )
    if field.get("type") == "array":
        return f"list of {_value(field['items'], root)}" + _bounds(field, "minItems", "maxItems", " of them")
    if field.get("type") == "object" and "properties" in field:
        return "object: " + ", ".join(code(name) for name in field["properties"])
    if field.get("type") == "object":
        inner = field.get("additionalProperties")
        return f"object of {_value(inner, root)}" if isinstance(inner, Mapping) and inner else "object"
    return (
        str(field.get("type", "any JSON"))
        + _bounds(field, "minimum", "maximum", "")
        + _bounds(field, "minLength", "maxLength", " characters")
    )


def _bounds(field: Mapping[str, Any], low: str, high: str, unit: str) -> str:
    least, most = field.get(low), field.get(high)
    above = field.get("exclusiveMinimum") if low == "minimum" else None
    said = [f"at least {least}" if least is not None else "", f"more than {above}" if above is not None else ""]
    said += [f"at most {most}" if most is not None else ""]
    shown = ", ".join(word for word in said if word)
    return f" ({shown}{unit})" if shown and abs(least or 0) < 2**60 else ""
