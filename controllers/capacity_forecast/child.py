"""`python -m controllers.capacity_forecast.child`: jobs in on stdin, answers out on stdout, until stdin ends.

Each message is its length (4 bytes, big-endian) and a pickle; only the operator, its parent, is on the other side.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import warnings
from typing import BinaryIO

LENGTH = struct.Struct(">I")


def main() -> int:
    """0 when the parent has left."""
    # Whatever a library prints must not land between answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.nice(5)
    warnings.simplefilter("ignore")
    from controllers.capacity_forecast.job import run

    jobs = sys.stdin.buffer
    while (data := read(jobs)) is not None:
        try:
            answer: object = run(pickle.loads(data))
        except Exception as error:  # noqa: BLE001 - the parent is told, and the next job is another service's
            answer = f"{type(error).__name__}: {error}"
        write(answers, pickle.dumps(answer))
    return 0


def read(stream: BinaryIO) -> bytes | None:
    """One message; None at the end of the stream."""
    head = stream.read(LENGTH.size)
    return stream.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else None


def write(stream: BinaryIO, data: bytes) -> None:
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
