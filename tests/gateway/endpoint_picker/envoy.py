"""A real Envoy that asks our endpoint picker where each request goes, as Gateway API implementations set it up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from e2e.ports import free_ports

_KIND = "type.googleapis.com/envoy.extensions"
BUFFERED = {"request_body_mode": "BUFFERED", "response_body_mode": "STREAMED"}
FULL_DUPLEX = {"request_body_mode": "FULL_DUPLEX_STREAMED", "response_body_mode": "FULL_DUPLEX_STREAMED"}


def configuration(port: int, admin_port: int, picker_port: int, modes: dict[str, str]) -> dict[str, Any]:
    trailers = "SEND" if modes is FULL_DUPLEX else "SKIP"
    mode = {"request_header_mode": "SEND", "response_header_mode": "SEND", **modes}
    mode |= {"request_trailer_mode": trailers, "response_trailer_mode": trailers}
    ext_proc = {
        "@type": f"{_KIND}.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}, "timeout": "10s"},
        "failure_mode_allow": False,
        "message_timeout": "10s",
        "processing_mode": mode,
    }
    router = {"@type": f"{_KIND}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_KIND}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_protocol_options": {"enable_trailers": True},
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "workers", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.ext_proc", "typed_config": ext_proc},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    }
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_KIND}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    return {
        "admin": {"address": _address(admin_port)},
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": _address(port),
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
                    "name": "workers",
                    "type": "ORIGINAL_DST",
                    "lb_policy": "CLUSTER_PROVIDED",
                    "connect_timeout": "2s",
                    "original_dst_lb_config": {
                        "use_http_header": True,
                        "http_header_name": "x-gateway-destination-endpoint",
                    },
                },
                {
                    "name": "picker",
                    "type": "STATIC",
                    "connect_timeout": "2s",
                    "typed_extension_protocol_options": http2,
                    "load_assignment": {
                        "cluster_name": "picker",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(picker_port)}}]}],
                    },
                },
            ],
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@contextlib.asynccontextmanager
async def envoy(folder: Path, picker_port: int, modes: dict[str, str]) -> AsyncIterator[str]:
    """Its base URL, once it is ready."""
    port, admin_port = free_ports(2)
    file = folder / "envoy.json"
    file.write_text(json.dumps(configuration(port, admin_port, picker_port, modes)))
    program = str(Path(sys.executable).parent / "envoy")
    log = (folder / "envoy.log").open("wb")
    flags = ["--concurrency", "1", "--log-level", "warning", "--use-dynamic-base-id"]
    process = await asyncio.create_subprocess_exec(program, "-c", str(file), *flags, stdout=log, stderr=log)
    try:
        async with aiohttp.ClientSession() as session:
            await _ready(session, admin_port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()
        log.close()


async def _ready(session: aiohttp.ClientSession, admin_port: int, process: Process) -> None:
    answers: list[int] = []

    async def ask() -> None:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"http://127.0.0.1:{admin_port}/ready") as response:
                answers.append(response.status)

    while 200 not in answers:
        assert process.returncode is None, "Envoy has ended"
        await ask()
