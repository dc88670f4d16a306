"""From `python -m worker_image serve` to the first token over HTTP, as a pod would see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.report import REPOSITORY
from e2e.ports import free_ports

LIMIT_S = 120.0


def start_to_first_token_s(checkpoint: Path, n_threads: int) -> float:
    """Raises RuntimeError with the worker's log where it does not answer in time."""
    port, admin_port = free_ports(2)
    command = [
        sys.executable, "-m", "worker_image", "serve", str(checkpoint), "--served-model-name", "chat",
        "--host", "127.0.0.1", "--port", str(port), "--admin-port", str(admin_port), "--threads", str(n_threads),
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+") as log:
        started_at = time.perf_counter()
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
        try:
            while not _first_token(port):
                if process.poll() is not None or time.perf_counter() - started_at > LIMIT_S:
                    log.seek(0)
                    raise RuntimeError(f"the worker gave no token: {log.read()}")
                time.sleep(0.02)
            return time.perf_counter() - started_at
        finally:
            process.kill()
            process.wait()


def _first_token(port: int) -> bool:
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1})
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body.encode())
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False
