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
N_TRIED_TOKENS: Final = 64
"""As far as the arguments of a tool's call, or an object in an object."""
SHORTEST_JSON: Final = '":{[,}]'
"""What ends or opens something, rather than more of the same text, comes first."""


def check(tokenizer: LLTokenizer, grammar: str) -> str:
    """What is wrong with the grammar; empty if nothing.

    The first mask is where a lexer shows its size, and the beginning of an object where a parser does.
    """
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    preferred = [token for text in SHORTEST_JSON for token in tokenizer.tokenize_str(text)[:1]]
    for _ in range(N_TRIED_TOKENS):
        if matcher.is_error() or matcher.is_stopped():
            break
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        if mask:
            forced = matcher.compute_ff_tokens()[:1]
            allowed = (token for token in preferred if mask >> token & 1)
            matcher.consume_token(forced[0] if forced else next(allowed, _first(mask)))
    return matcher.get_error()


def _first(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


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
