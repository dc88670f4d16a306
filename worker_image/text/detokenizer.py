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

    def _spell(self, token_id: int) -> bytes:
        if token_id in self._special_ids:
            return b""
        token = self._tokens[token_id]
        if all(character in self._alphabet for character in token):
            return bytes(self._alphabet[character] for character in token)
        return token.encode()


class Detokenizer:
    """One request's decoder: bytes that are not whole characters yet wait for the next token."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        return self._decoder.decode(self._token_bytes.of(token_id))

    def flush(self) -> str:
        """What is left when no token follows: a broken character is shown as U+FFFD."""
        return self._decoder.decode(b"", final=True)
