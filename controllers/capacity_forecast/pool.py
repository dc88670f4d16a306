"""A bounded pool of processes for forecasts. Never blocks the loop; a job that takes too long dies with its process.

Fresh interpreters rather than forks: a fork of a process with threads (Kopf, SQLite, the elector) may hang for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
from dataclasses import dataclass
from typing import Final

from controllers.capacity_forecast.child import LENGTH
from controllers.capacity_forecast.job import Job
from forecasting.forecast import Forecast

CHILD: Final = "controllers.capacity_forecast.child"
_LAST_WORDS_S: Final = 5.0
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class ForecastFailed(Exception):
    """No forecast came of a job: it took too long, its process died, or the history is of no use."""


@dataclass(slots=True)
class _Child:
    process: asyncio.subprocess.Process

    async def ask(self, job: Job) -> object:
        """Raises OSError or EOFError when the process is gone."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None, "the pipes were asked for"
        assert stdout is not None, "the pipes were asked for"
        data = pickle.dumps(job)
        stdin.write(LENGTH.pack(len(data)) + data)
        await stdin.drain()
        head = await stdout.readexactly(LENGTH.size)
        return pickle.loads(await stdout.readexactly(LENGTH.unpack(head)[0]))

    async def ended(self) -> None:
        """It closed its end of the pipe, so it is ending. A signal now would take its exit code away from asyncio."""
        try:
            await asyncio.wait_for(self.process.wait(), _LAST_WORDS_S)
        except TimeoutError:
            await self.end()

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class ForecastPool:
    """At most `processes` at once; each is started when it is first needed."""

    def __init__(self, processes: int, timeout_s: float, *, module: str = CHILD) -> None:
        self._timeout_s, self._module = timeout_s, module
        self._slots = asyncio.Semaphore(processes)
        self._idle: list[_Child] = []

    async def run(self, job: Job) -> Forecast:
        """Raises: ForecastFailed."""
        async with self._slots:
            child = self._idle.pop() if self._idle else await self._start()
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await child.ask(job)
            except TimeoutError:
                await child.end()
                raise ForecastFailed(f"It took more than {self._timeout_s:g} s and was stopped.") from None
            except (OSError, EOFError) as error:
                await child.ended()
                raise ForecastFailed(f"Its process ended with code {child.process.returncode}.") from error
            except asyncio.CancelledError:
                await child.end()
                raise
            self._idle.append(child)
        if not isinstance(answer, Forecast):
            raise ForecastFailed(str(answer))
        return answer

    async def close(self) -> None:
        """Ends those that wait; those that work end with their jobs' cancellation."""
        while self._idle:
            await self._idle.pop().end()

    async def _start(self) -> _Child:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
            )
        except OSError as error:  # no memory, no process or no file handle left
            raise ForecastFailed(f"Its process could not be started: {error}.") from error
        return _Child(process)
