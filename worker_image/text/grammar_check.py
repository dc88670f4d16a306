"""Whether a grammar can be compiled, asked of a child that is killed when it takes too long or too much.

One child at a time, started when the first grammar comes and again after it was killed. What it found is remembered;
that it was killed by somebody else, or came to nothing on a busy machine, is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import orjson

from worker_image.checkpoint.tokenizer import Vocabulary
from worker_image.errors import EngineError, RequestError
from worker_image.text.grammar_child import HEADER
from worker_image.turns import Turns

N_REMEMBERED: Final = 1000
MAX_GRAMMAR_CHARS: Final = 1 << 20
MAX_VERDICT_CHARS: Final = 400
BUSY: Final = 503
"""Of what says nothing about the grammar: another worker may compile it, or this one another time."""
FROM_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""What ends a process without its doing."""
START_LIMIT_S: Final = 30.0
"""For the interpreter and the tokenizer of a fresh child; not part of a grammar's own time."""


@dataclass(frozen=True)
class GrammarLimits:
    timeout_s: float = 5.0
    """Of the child's processor time."""
    patience_s: float = 10.0
    """Beyond that, where the machine is busy with other things."""
    memory_bytes: int = 2 << 30
    """Address space of the child, interpreter and tokenizer included."""


class GrammarCheck:
    """Of one vocabulary. `stop` ends the child."""

    def __init__(self, vocabulary: Vocabulary, limits: GrammarLimits) -> None:
        self._vocabulary = vocabulary
        self._limits = limits
        self._child: asyncio.subprocess.Process | None = None
        self._busy = False
        self._turns: Turns[asyncio.Future[None]] = Turns()
        self._verdicts: OrderedDict[bytes, str] = OrderedDict()
        self.n_killed = 0
        """Children that were ended amid a grammar."""

    @property
    def pid(self) -> int | None:
        """The child's; None while there is none."""
        return None if self._child is None else self._child.pid

    async def check(self, grammar: str, param: str, salt: str = "") -> None:
        """Raises RequestError for a grammar that cannot be compiled, or not within the limits. Only among requests of
        the same salt is a verdict remembered: how long it takes tells whether somebody has asked before."""
        if not self._vocabulary.stop_ids:
            raise RequestError(f"no token ends this model's answers, which '{param}' needs.", param=param)
        if len(grammar) > MAX_GRAMMAR_CHARS:
            raise RequestError(f"'{param}' is larger than the {MAX_GRAMMAR_CHARS >> 20} MiB allowed.", param=param)
        key = sha256(f"{salt}\0{grammar}".encode()).digest()
        if key not in self._verdicts:
            async with self._turn(salt):
                if key not in self._verdicts:
                    self._remember(key, _one_line(await self._ask(grammar, param)))
        if verdict := self._verdicts[key]:
            raise RequestError(f"'{param}' cannot be compiled: {verdict.rstrip('.')}.", param=param)

    @contextlib.asynccontextmanager
    async def _turn(self, salt: str) -> AsyncIterator[None]:
        """One grammar at a time, by turns of the salts: a tenant's many schemas hold up another's by one."""
        turn = asyncio.get_running_loop().create_future()
        self._turns.add(salt, turn)
        if not self._busy:
            self._busy = True
            self._pass_on()
        try:
            await turn
            yield
        finally:
            if not turn.cancelled():
                self._pass_on()

    def _pass_on(self) -> None:
        while (turn := self._turns.next()) is not None:
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False

    def _remember(self, key: bytes, verdict: str) -> None:
        self._verdicts[key] = verdict
        if len(self._verdicts) > N_REMEMBERED:
            self._verdicts.popitem(last=False)

    async def _ask(self, grammar: str, param: str) -> str:
        """What is wrong with the grammar; empty if nothing. Raises RequestError where that could not be found out."""
        for _ in range(2):
            child = await self._living()
            answered = False
            try:
                async with asyncio.timeout(self._limits.timeout_s + self._limits.patience_s):
                    verdict = await _exchange(child, grammar)
                answered = True
                return verdict
            except TimeoutError:
                message = f"'{param}' could not be compiled in time; try again."
                raise RequestError(message, param=param, status=BUSY) from None
            except (asyncio.IncompleteReadError, ConnectionError):
                ending = await child.wait()
            finally:
                # A child left amid a grammar, be it that the client went away, is of no more use.
                if not answered:
                    self.n_killed += 1
                    await self.stop()
            if ending == -signal.SIGPROF:
                return f"it takes longer than {self._limits.timeout_s:g} s; make it simpler"
            if -ending not in FROM_OUTSIDE:
                return (
                    f"it needs more than the {self._limits.memory_bytes >> 20} MiB of memory allowed; make it simpler"
                )
        message = f"'{param}' could not be compiled: its process was killed twice; try again."
        raise RequestError(message, param=param, status=BUSY)

    async def _living(self) -> asyncio.subprocess.Process:
        if self._child is not None and self._child.returncode is not None:
            await self.stop()
        return self._child or await self._start()

    async def _start(self) -> asyncio.subprocess.Process:
        arguments = (str(self._limits.memory_bytes), str(self._limits.timeout_s))
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "worker_image.text.grammar_child", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=MAX_GRAMMAR_CHARS,
        )  # fmt: skip
        self._child = child
        vocabulary = self._vocabulary
        tokenizer = [vocabulary.tokenizer.to_str(), len(vocabulary.tokens), sorted(vocabulary.stop_ids)]
        problem: str | None = None
        try:
            async with asyncio.timeout(START_LIMIT_S):
                problem = await _exchange(child, orjson.dumps(tokenizer).decode())
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            problem = f"no answer within {START_LIMIT_S:g} s and {self._limits.memory_bytes >> 20} MiB of memory"
        finally:
            # Also where the client went away: the child's first answer would be taken for that to a grammar.
            if problem != "":
                await self.stop()
        if problem:
            raise EngineError(f"the process that checks schemas cannot start: {problem}.")
        return child

    async def stop(self) -> None:
        """Kills the child. Safe to call twice."""
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


def _one_line(verdict: str) -> str:
    """A compiler's words may be several lines, the last of which draw a state nobody asked for."""
    return " ".join(verdict.split())[:MAX_VERDICT_CHARS]


async def _exchange(child: asyncio.subprocess.Process, text: str) -> str:
    assert child.stdin is not None
    assert child.stdout is not None
    body = text.encode()
    child.stdin.write(HEADER.pack(len(body)) + body)
    await child.stdin.drain()
    (length,) = HEADER.unpack(await child.stdout.readexactly(HEADER.size))
    return (await child.stdout.readexactly(length)).decode()
