"""Token ids → text, as they come: a piece is given out only once its bytes are whole characters."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


def byte_alphabet() -> dict[str, int]:
    """The printable stand-ins that byte-level BPE uses for bytes (GPT-2's table): character → byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


class TokenBytes:
    """The bytes of every token; special tokens have none. Shared by all requests, filled as tokens are met."""

    def __init__(self, tokens: Sequence[str], special_ids: frozenset[int]) -> None:
        self._tokens = tokens
        self._special_ids = special_ids
        self._alphabet = byte_alphabet()
        self._known: dict[int, bytes] = {}

    def of(self, token_id: int) -> bytes:
        known = self._known.get(token_id)
        if known is None:
            known = self._known[token_id] = self._spell(token_id)
        return known

    def spelling(self, token_id: int) -> bytes:
        """As `of`, but a special token is what it looks like in a prompt."""
        return self.of(token_id) or self._tokens[token_id].encode()

    def text(self, token_ids: Sequence[int]) -> str:
        """Of a prompt: special tokens are written out, broken characters shown as U+FFFD."""
        return b"".join(map(self.spelling, token_ids)).decode("utf-8", "replace")

    def _spell(self, token_id: int) -> bytes:
        if token_id in self._special_ids:
            return b""
        token = self._tokens[token_id]
        if all(character in self._alphabet for character in token):
            return bytes(self._alphabet[character] for character in token)
        return token.encode()


class Detokenizer:
    """One request's decoder: bytes that are not whole characters yet wait for the next token."""

    __slots__ = ("_bytes_of", "_decode")

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._bytes_of = token_bytes.of
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def push(self, token_id: int) -> str:
        return self._decode(self._bytes_of(token_id))

    def flush(self) -> str:
        """What is left when no token follows: a broken character is shown as U+FFFD."""
        return self._decode(b"", final=True)
