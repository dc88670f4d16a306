"""What a stream leaves behind so that another worker can go on with it, written and read back. See `crds.contract`.

Token ids and how choices ended, nothing else: everything the API shows follows from them. Holds no stream.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from crds.contract import JOURNAL_COMPLETE, JOURNAL_LEFT
from worker_image.engine.messages import Finish, TokenOut
from worker_image.errors import RequestError
from worker_image.server.choice import Piece

_ENDINGS: Final = {Finish.STOP: b"s", Finish.LENGTH: b"l", Finish.ERROR: b"", Finish.REFUSED: b"", None: b""}
_FINISHES: Final = {b"s": Finish.STOP, b"l": Finish.LENGTH, b"": None}
_ENTRY: Final = re.compile(rb"(?:(\d{1,4})=)?(?:@(\d{1,9}) )?(\d{1,9}(?: \d{1,9})*)([sl]?)")


@dataclass
class Past:
    """What one choice has said on other workers."""

    tokens: list[TokenOut] = field(default_factory=list)
    cached_tokens: int = 0
    """Of its prompt, in the cache of the first worker."""

    @property
    def ids(self) -> list[int]:
        return [token.token for token in self.tokens]


class JournalWriter:
    """The comments of one stream. Nearly all are of one token of one choice."""

    def __init__(self, pasts: Sequence[Past]) -> None:
        """pasts: what the journal says already of each choice."""
        self._told = [bool(past.tokens) for past in pasts]

    def line(self, pieces: Sequence[Piece]) -> bytes:
        return b":" + b";".join([self._entry(piece) for piece in pieces]) + b"\n\n"

    def _entry(self, piece: Piece) -> bytes:
        index, tokens = piece.choice.index, piece.tokens
        head = b"%d=" % index if index else b""
        if not self._told[index]:
            self._told[index] = True
            if piece.choice.n_cached:
                head += b"@%d " % piece.choice.n_cached
        ids = b"%d" % tokens[0].token if len(tokens) == 1 else b" ".join([b"%d" % token.token for token in tokens])
        return head + ids + _ENDINGS[tokens[-1].finish]


def complete(timing: str) -> bytes:
    """The last comment of a whole answer; `timing` is empty where nobody traces it."""
    return b":" + JOURNAL_COMPLETE + timing.encode() + b"\n\n"


def left(reason: bytes) -> bytes:
    """The last comment of a worker that cannot go on."""
    return b":" + JOURNAL_LEFT + reason + b"\n\n"


def read_journal(journal: bytes, n_choices: int, n_vocabulary: int) -> list[Past]:
    """What each choice has said. Raises RequestError for what no worker can have written."""
    pasts = [Past() for _ in range(n_choices)]
    for number, line in enumerate(journal.split(b"\n"), 1):
        for entry in line.split(b";") if line else ():
            problem = _read_entry(entry, pasts, n_vocabulary)
            if problem is not None:
                raise RequestError(f"line {number} of the journal: {problem}.", code="bad_journal")
    return pasts


def _read_entry(entry: bytes, pasts: list[Past], n_vocabulary: int) -> str | None:
    """Adds it to its choice; a sentence where it cannot be."""
    found = _ENTRY.fullmatch(entry)
    if found is None:
        return f"'{entry[:60].decode('latin-1')}' is no entry"
    index, cached, ids, ending = found.groups()
    at = int(index or 0)
    if at >= len(pasts):
        return f"choice {at} is outside the request's {len(pasts)} choices"
    past, tokens = pasts[at], [int(token) for token in ids.split()]
    if past.tokens and past.tokens[-1].finish is not None:
        return f"choice {at} goes on after its end"
    if max(tokens) >= n_vocabulary:
        return f"token {max(tokens)} is outside the vocabulary of {n_vocabulary}"
    past.tokens += [TokenOut(0, token) for token in tokens]
    past.tokens[-1] = TokenOut(0, tokens[-1], _FINISHES[ending])
    past.cached_tokens = past.cached_tokens or int(cached or 0)
    return None
