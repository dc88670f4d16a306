"""A worker with a small random model and a gateway before it, as processes; a victim and an attacker who have keys.

Both tenants use one service. They share a cache domain where the leak is to be seen, and none where it is not.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import orjson

from benchmarks.failover.fleet import answers
from e2e.ports import free_ports
from tests.worker_image.tiny_gguf import Shape, tiny_llama, write_gguf

VICTIM, ATTACKER = "sk-victim", "sk-attacker"
_START_LIMIT_S = 120.0
MODEL = Shape(layers=4, hidden=256, ffn=512, context=2048)


@asynccontextmanager
async def stage(folder: Path, *, shared: bool) -> AsyncIterator[str]:
    """The gateway's URL."""
    model = write_gguf(folder / "model.gguf", tiny_llama(MODEL))
    port, admin_port, worker_port, worker_admin_port = free_ports(4)
    config = folder / "gateway.json"
    config.write_bytes(orjson.dumps(_catalog(worker_port, shared=shared)))
    async with AsyncExitStack() as stack:
        worker = ("worker_image", "serve", str(model), "--port", str(worker_port), "--threads", "1")
        await stack.enter_async_context(_process(folder, worker_admin_port, *worker, "--served-model-name", "chat"))
        await _ready(f"http://127.0.0.1:{worker_port}/health")
        flags = ("--static", str(config), "--peer-port", "0", "--drain-grace", "0", "--drain-timeout", "1")
        await stack.enter_async_context(_process(folder, admin_port, "gateway", "--port", str(port), *flags))
        await _ready(f"http://127.0.0.1:{port}/v1/models")
        yield f"http://127.0.0.1:{port}"


def _catalog(worker_port: int, *, shared: bool) -> dict[str, object]:
    domain = {"cacheDomain": "both"} if shared else {}
    tenants = [
        {"name": name, "namespaces": ["demo"], "keys": [key], **domain}
        for name, key in (("victim", VICTIM), ("attacker", ATTACKER))
    ]
    service = {"namespace": "demo", "name": "chat", "endpoints": [f"127.0.0.1:{worker_port}"]}
    return {"tenants": tenants, "services": [service]}


async def _ready(url: str) -> None:
    """Returns when what is answered there is no failure any more: a gateway asks for a key then."""
    await answers(url)
    deadline_s = time.monotonic() + _START_LIMIT_S
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(url) as answer:
                if answer.status < 500:
                    return
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{url} answers {answer.status} after {_START_LIMIT_S:.0f} s")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def _process(folder: Path, admin_port: int, module: str, *arguments: str) -> AsyncIterator[None]:
    with (folder / f"{module}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments,
            "--host", "127.0.0.1", "--admin-port", str(admin_port), stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            await process.wait()
