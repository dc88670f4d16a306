"""Real worker processes for tests: start, wait until ready, talk, stop. Nothing is mocked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from e2e.ports import free_ports
from tests.waiting import eventually_blocking

ROOT: Final = Path(__file__).parents[2]
START_LIMIT_S: Final = 120.0


class WorkerProcess:
    """`python -m worker_image serve …` on two free ports of the loopback."""

    def __init__(self, path: Path, log: Path, *flags: str) -> None:
        self.port, self.admin_port = free_ports(2)
        self._log = log
        command = [
            sys.executable, "-m", "worker_image", "serve", str(path), "--host", "127.0.0.1",
            "--port", str(self.port), "--admin-port", str(self.admin_port), "--threads", "1",
            "--served-model-name", "chat", "--served-model-name", "demo/chat", *flags,
        ]  # fmt: skip
        with log.open("w") as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=output, stderr=output
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_ready(self) -> None:
        def ready_or_ended() -> bool:
            return self._process.poll() is not None or self.admin("/health/ready")[0] == 200

        eventually_blocking(ready_or_ended, "the worker is ready", START_LIMIT_S)
        assert self._process.poll() is None, self.output

    def admin(self, path: str) -> tuple[int, str]:
        """Status and body; (0, "") while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except urllib.error.URLError:
            return 0, ""

    def health(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.admin("/health/live")[1])
        return facts

    def metric(self, name: str) -> float:
        """The sum of the series of that name."""
        lines = self.admin("/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))

    def engine_pid(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        (pid,) = children
        return int(pid)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, within_s: float = 60.0) -> int:
        """The exit code."""
        return self._process.wait(within_s)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextmanager
def a_worker(path: Path, folder: Path, *flags: str) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(path, folder / "worker.log", *flags)
    try:
        worker.wait_ready()
        yield worker
    finally:
        worker.stop()
