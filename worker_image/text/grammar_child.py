"""`python -m worker_image.text.grammar_child MEMORY_BYTES TIMEOUT_S`: compiles grammars that may be hostile.

A process of its own, because a compiler cannot be interrupted and a process can: it has its memory limited, and ends
by SIGPROF when a grammar has taken too much processor time, which another's load on the machine does not change.
Frames on standard input and output are four bytes of length and that much text: the tokenizer first, then grammars,
each answered with what is wrong with it, or nothing.
"""

from __future__ import annotations

import resource
import signal
import struct
import sys
from typing import BinaryIO, Final

import orjson
from llguidance import LLMatcher, LLTokenizer

HEADER: Final = struct.Struct("!I")


def check(tokenizer: LLTokenizer, grammar: str) -> str:
    """What is wrong with the grammar; empty if nothing. The first mask is where a lexer shows its size."""
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    if not matcher.is_error():
        matcher.compute_bitmask()
    return matcher.get_error()


def read_tokenizer(frame: bytes) -> tuple[LLTokenizer | None, str]:
    """The tokenizer, or what is wrong with it."""
    try:
        return LLTokenizer(*orjson.loads(frame)), ""
    except ValueError as error:
        return None, str(error) or "it cannot be read"


def read_frame(stream: BinaryIO) -> bytes | None:
    """None at the end of the stream."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (length,) = HEADER.unpack(header)
    return stream.read(length)


def serve(source: BinaryIO, sink: BinaryIO, timeout_s: float) -> None:
    """Returns at the end of `source`."""
    tokenizer: LLTokenizer | None = None
    while (frame := read_frame(source)) is not None:
        if tokenizer is None:
            tokenizer, verdict = read_tokenizer(frame)
        else:
            # The signal's default action ends the process, whatever it is busy with.
            signal.setitimer(signal.ITIMER_PROF, timeout_s)
            verdict = check(tokenizer, frame.decode())
            signal.setitimer(signal.ITIMER_PROF, 0)
        body = verdict.encode()
        sink.write(HEADER.pack(len(body)) + body)
        sink.flush()


def main() -> int:
    memory_bytes, timeout_s = int(sys.argv[1]), float(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Ctrl-C reaches the whole process group; the parent decides when its child ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(sys.stdin.buffer, sys.stdout.buffer, timeout_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
