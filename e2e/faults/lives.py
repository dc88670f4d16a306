"""The operator's process: begun, killed and begun again, as a kubelet would, and what its log says about itself.

Importing the operator takes seconds of CPU time. So one process imports it once (`python -m e2e.faults.lives`) and
forks a life whenever it is asked; each life is a process of its own that runs `operator/main.py` from its first line.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import json
import os
import selectors
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from e2e.ports import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
LOST_LEASE: Final = ("lost the lease", "The lease ran out")
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class Ended:
    """A life that was over before it was ended."""

    code: int
    last_line: str

    @property
    def for_want_of_time(self) -> bool:
        """The machine was too busy to renew a lease; the process ends by design."""
        return any(one in self.last_line for one in LOST_LEASE)


@dataclass
class Lives:
    """One life at a time. `async with`; the operator is begun by `begin`."""

    kubeconfig: Path
    folder: Path
    plant: str = ""
    """The mistake that is planted in the lives that begin from now on."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Their configuration file."""
    ended: list[Ended] = field(default_factory=list)
    starts: int = 0
    _nursery: asyncio.subprocess.Process | None = None
    _pid: int | None = None
    _killed: set[int] = field(default_factory=set)
    _reader: asyncio.Task[None] | None = None
    _born: asyncio.Future[int] | None = None
    _keeps: bool = False
    _beginning: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
        self._nursery = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "e2e.faults.lives",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeps = False
        self.kill()
        assert self._nursery is not None
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        await self._nursery.wait()
        assert self._reader is not None
        await self._reader

    @property
    def runs(self) -> bool:
        """Whether one lives, or is about to."""
        return self._keeps

    @property
    def log(self) -> Path:
        """Of all lives, one after the other."""
        return self.folder / "operator.log"

    async def begin(self) -> None:
        """A new life; it is begun again should it end by itself."""
        self._keeps = True
        await self._begin()

    def kill(self) -> None:
        """SIGKILL, now; nothing is begun again by itself."""
        self._keeps = False
        if self._pid is not None:
            self._killed.add(self._pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._pid = None

    def kill_and_begin(self) -> None:
        """SIGKILL, now; the next one begins by itself."""
        self.kill()
        self._keeps = True
        self._beginning = asyncio.get_running_loop().create_task(self._begin())

    async def again(self) -> None:
        """Kill it and begin the next."""
        self.kill()
        await self.begin()

    def complaints(self, since: int = 0) -> list[str]:
        """Exceptions that nobody expected, in the log from byte `since` on."""
        found = []
        for line in self.log.read_bytes()[since:].decode(errors="replace").splitlines():
            try:
                said = json.loads(line)
            except json.JSONDecodeError:
                if line.startswith("Traceback") or "Error:" in line:
                    found.append(line[:300])
                continue
            text = str(said.get("message", ""))
            if said.get("level") in ("error", "critical") and not any(one in text for one in LOST_LEASE):
                found.append(text[:300])
        return found

    def log_bytes(self) -> int:
        """How long the log is."""
        return self.log.stat().st_size

    async def _begin(self) -> None:
        self.starts += 1
        arguments = ["--kubeconfig", str(self.kubeconfig), "--host", "127.0.0.1", "--port", str(free_port())]
        # A lease of its own each time: waiting for the last one's to run out is not what is tried here.
        arguments += ["--lease-name", f"foretide-life-{os.getpid()}-{self.starts}", "--log-level", "warning"]
        config = self.folder / "operator.json"
        config.write_text(json.dumps(dict(self.settings)))
        arguments += ["--config", str(config)]
        assert self._nursery is not None
        assert self._nursery.stdin is not None
        self._born = asyncio.get_running_loop().create_future()
        asked = {"arguments": arguments, "log": str(self.log), "plant": self.plant}
        self._nursery.stdin.write(json.dumps(asked).encode() + b"\n")
        self._pid = await self._born

    async def _read(self) -> None:
        assert self._nursery is not None
        assert self._nursery.stdout is not None
        while line := await self._nursery.stdout.readline():
            word, *numbers = line.split()
            if word == b"born" and self._born is not None:
                self._born.set_result(int(numbers[0]))
            elif word == b"ended" and int(numbers[0]) not in self._killed:
                await self._restart(int(numbers[1]))

    async def _restart(self, code: int) -> None:
        lines = self.log.read_text(errors="replace").splitlines()
        self._pid = None
        self.ended.append(Ended(code, lines[-1][:500] if lines else ""))
        if self._keeps:
            self._beginning = asyncio.get_running_loop().create_task(self._begin())


# --- in the process that forks ---------------------------------------------------------------------------------------
def _nurse() -> None:
    """Import the operator, then fork a life for each line on stdin, until there is none."""
    operator = _imported()
    lives: dict[int, int] = {}
    with selectors.DefaultSelector() as events:
        events.register(0, selectors.EVENT_READ)
        while True:
            for ready, _ in events.select():
                if ready.fd == 0:
                    lines = os.read(0, 2**16).splitlines()
                    if not lines:
                        return
                    for line in lines:
                        pid = _forked(operator, json.loads(line))
                        pidfd = os.pidfd_open(pid)
                        lives[pidfd] = pid
                        events.register(pidfd, selectors.EVENT_READ)
                        print("born", pid, flush=True)
                else:
                    pid = lives.pop(ready.fd)
                    events.unregister(ready.fd)
                    os.close(ready.fd)
                    print("ended", pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _imported() -> Any:
    """`operator/main.py`, whose name belongs to the standard library, and all that it imports when it begins."""
    import controllers.build
    import controllers.runtime.loop  # noqa: F401

    spec = importlib.util.spec_from_file_location("foretide_operator_main", ROOT / "operator" / "main.py")
    assert spec is not None
    assert spec.loader is not None
    operator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(operator)
    return operator


def _forked(operator: Any, asked: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 70
    try:
        from e2e.faults.controls import plant

        plant(asked["plant"])
        code = operator.main(asked["arguments"])
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _nurse()
