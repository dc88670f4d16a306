"""Background processes that a later call can find again and end, by id and never by name.

A recorded id is believed only together with the process's start time, so an id that the kernel gave to somebody else is
never signalled. A process on a leash also ends when the one that started it does, however that ended: tests that are
killed leave nothing behind.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from e2e.cluster.errors import StartFailed
from e2e.cluster.shell import wait_until

STOP_S = 20.0
LOG_TAIL_BYTES = 4096


class Process:
    """A program whose log and pid file lie in `directory`; the pid file outlives this object, and this interpreter."""

    def __init__(self, name: str, directory: Path, *, leash: bool = False) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._pid_file = directory / f"{name}.pid"
        self._leash = leash
        self._spawner: ThreadPoolExecutor | None = None

    def pid(self) -> int | None:
        """Its id, if it runs."""
        try:
            pid, started = self._pid_file.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        _reap(int(pid))
        return int(pid) if start_time(int(pid)) == started else None

    def start(self, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        """Start it unless it runs."""
        if self.pid() is not None:
            return
        self._let_go()
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in argv]
        environment = {**os.environ, **(env or {})}
        if self._leash:
            # The kernel ends a child with the thread that forked it, so that thread must live as long as the child may.
            self._spawner = ThreadPoolExecutor(1, thread_name_prefix=f"leash-{self.name}")
            leashed = ["setpriv", "--pdeathsig", "KILL", *words]
            pid = self._spawner.submit(self._spawn, leashed, environment).result()
        else:
            pid = self._spawn(words, environment)
        self._pid_file.write_text(f"{pid} {start_time(pid)}")

    def _spawn(self, words: list[str], environment: Mapping[str, str]) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        streams = (
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self.log), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            # What outlives its starter must not keep the starter's files open: a lock would be held for ever.
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()),
        )
        # A session of its own: Ctrl-C at the terminal is for the command in the foreground, not for the cluster.
        return os.posix_spawnp(words[0], words, environment, file_actions=streams, setsid=True)

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = STOP_S) -> None:
        """End it and wait until it is gone; after `timeout_s` it is not asked again but killed."""
        for wanted in (how, signal.SIGKILL):
            pid = self.pid()
            if pid is None:
                break
            os.kill(pid, wanted)
            try:
                wait_until(lambda: self.pid() is None, f"the end of {self.name} (process {pid})", timeout_s)
            except StartFailed:
                if wanted is signal.SIGKILL:
                    raise
        self._pid_file.unlink(missing_ok=True)
        self._let_go()

    def _let_go(self) -> None:
        if self._spawner is not None:
            self._spawner.shutdown()
            self._spawner = None

    def check(self) -> None:
        """Raises:
        StartFailed: it does not run; the message ends with its log's last lines.
        """
        if self.pid() is None:
            raise StartFailed(f"{self.name} is not running. The end of {self.log}:\n{self.tail()}")

    def tail(self) -> str:
        if not self.log.exists():
            return "(no log)"
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


def _inheritable() -> list[int]:
    """Open files beyond the first three that a child would have, too."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # The folder's own, which is closed again.
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def _reap(pid: int) -> None:
    """Collect it, if it is a child of ours that has ended."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def start_time(pid: int) -> str | None:
    """When a process started, in ticks since boot; None for one that is gone or only waits to be reaped.

    A first thread that has ended while others still do has not let go of its ports yet.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the program's name in parentheses, may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    state, n_threads, started = fields[0], int(fields[17]), fields[19]
    return None if state in "ZX" and n_threads <= 1 else started
