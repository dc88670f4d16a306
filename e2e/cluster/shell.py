"""Calling programs and waiting for conditions; never a fixed sleep as a proof, never a swallowed failure."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.cluster.errors import CommandFailed, StartFailed, UnsuitableHost

POLL_S = 0.05


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | bytes | Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    whole: bool = False,
) -> str:
    """Standard output of a program that must succeed. It reads text or a file's content from its standard input, else
    nothing. `env` is added to this process's environment. `whole`: Ctrl-C waits until the program has ended by itself.

    Raises:
        CommandFailed: it ended with something other than 0; the message carries its last lines.
    """
    words = [str(word) for word in argv]
    environment = {**os.environ, **(env or {})}
    with open(stdin if isinstance(stdin, Path) else os.devnull, "rb") as file:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        source: dict[str, Any] = {"input": given} if isinstance(given, bytes) else {"stdin": file}
        with _interrupted_after(whole):
            done = subprocess.run(
                words, capture_output=True, cwd=cwd, env=environment, check=False, start_new_session=whole, **source
            )
    output: str = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise CommandFailed(words, done.returncode, output + done.stderr.decode(errors="replace"))
    return output


@contextmanager
def _interrupted_after(whole: bool) -> Iterator[None]:
    """Where `whole`, an interruption within the block comes at its end. For the main thread, where they come."""
    if not whole:
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            raise KeyboardInterrupt


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Poll `condition` until it holds.

    Raises:
        StartFailed: it did not hold within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise StartFailed(f"{what}: not within {timeout_s:.0f} s.")
        time.sleep(POLL_S)


def program(name: str) -> str:
    """Path of an installed program; the administrators' folders count, whatever PATH says.

    Raises:
        UnsuitableHost: it is not installed.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise UnsuitableHost(
            f"The program {name!r} is not installed. `python -m e2e.cluster up` installs what it needs."
        )
    return found
