"""A way to a Service of the cluster through `kubectl port-forward`, for as long as it is needed."""

from __future__ import annotations

import re
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cli.errors import CliError
from cli.kubectl import NO_KUBECTL, error_of

READY_WITHIN_S: Final = 20.0
_FORWARDS: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ")


@contextmanager
def forwarded(context: str | None, namespace: str, service: str, port: str) -> Iterator[str]:
    """`127.0.0.1:PORT`, until the block ends.

    Raises:
        CliError: there is no way there; says why.
    """
    chosen = ["--context", context] if context else []
    command = ["kubectl", *chosen, "-n", namespace, "port-forward", f"service/{service}", f":{port}"]
    try:
        process = subprocess.Popen(
            [*command, "--address=127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except (FileNotFoundError, PermissionError) as error:
        raise CliError(NO_KUBECTL) from error
    try:
        yield f"127.0.0.1:{_local_port(process)}"
    finally:
        _end(process)


def _local_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None, "it was opened as a pipe"
    assert process.stderr is not None, "it was opened as a pipe"
    if not select.select([process.stdout], [], [], READY_WITHIN_S)[0]:
        raise CliError(
            f"kubectl port-forward was not ready within {READY_WITHIN_S:.0f} s. Name the gateway with --url."
        )
    line = process.stdout.readline()
    found = _FORWARDS.match(line)
    if found is None:
        process.terminate()
        raise error_of(process.stderr.read() or line)
    return int(found[1])


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
