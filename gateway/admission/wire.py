"""A ledger's messages as datagrams: small, each whole in itself, signed with a secret that gateways share. Pure.

    magic 4 | sender 8 | seq 8 | flags 1 | part 1 | parts 1 | echo of 8 | echo seq 8 | entries … | HMAC-SHA256, first 16
    entry   book 1 | length of key 1 | key | Told: level, want, given, doubles | Claim: claimed, demand, 4 bytes each

What does not verify, or reads as nonsense, is no message at all: nobody is told why.
"""

from __future__ import annotations

import hmac
import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from gateway.admission.account import Told
from gateway.admission.ledger import Book, Message, Name
from gateway.admission.slots import Claim

MAGIC: Final = b"FTQ1"
DATAGRAM_BYTES: Final = 1200
"""Fits every network without being cut in pieces."""
PARTS_MOST: Final = 255
MAC_BYTES: Final = 16
_HEAD: Final = struct.Struct("!4s8sQBBB8sQ")
_TOLD: Final = struct.Struct("!ddd")
_CLAIM: Final = struct.Struct("!II")
_LARGEST: Final = 1e15
_MEMBER, _SETTLED, _LEAVING = 1, 2, 4
_SLOT_BOOKS = (Book.OPEN, Book.SERVICE)


def encode(message: Message, secret: bytes) -> list[bytes]:
    """One or more datagrams; entries beyond `PARTS_MOST` of them are left for a later round."""
    bodies = _bodies(message)
    return [
        _signed(_head(replace(message, part=part, parts=len(bodies))) + body, secret)
        for part, body in enumerate(bodies)
    ]


def decode(data: bytes, secret: bytes) -> Message | None:
    """The message, or None when it is not one of ours."""
    if not _HEAD.size + MAC_BYTES <= len(data) <= DATAGRAM_BYTES or data[:4] != MAGIC:
        return None
    body, mac = data[:-MAC_BYTES], data[-MAC_BYTES:]
    if not hmac.compare_digest(mac, hmac.digest(secret, body, "sha256")[:MAC_BYTES]):
        return None
    _, sender, seq, flags, part, parts, echo_of, echo_seq = _HEAD.unpack_from(body)
    entries = _entries(body[_HEAD.size :])
    if entries is None or part >= parts:
        return None
    member, settled, leaving = (bool(flags & one) for one in (_MEMBER, _SETTLED, _LEAVING))
    return Message(sender, seq, member, settled, leaving, echo_of, echo_seq, entries, part, parts)


def _bodies(message: Message) -> list[bytes]:
    room = DATAGRAM_BYTES - _HEAD.size - MAC_BYTES
    bodies = [bytearray()]
    for name, entry in message.entries:
        data = _entry(name, entry)
        if len(bodies[-1]) + len(data) > room:
            if len(bodies) == PARTS_MOST:
                break
            bodies.append(bytearray())
        bodies[-1] += data
    return [bytes(one) for one in bodies]


def _head(message: Message) -> bytes:
    flags = _MEMBER * message.member | _SETTLED * message.settled | _LEAVING * message.leaving
    return _HEAD.pack(
        MAGIC, message.sender, message.seq, flags, message.part, message.parts, message.echo_of, message.echo_seq
    )


def _signed(body: bytes, secret: bytes) -> bytes:
    return body + hmac.digest(secret, body, "sha256")[:MAC_BYTES]


def _entry(name: Name, entry: Told | Claim) -> bytes:
    key = name.key.encode()[:255]
    head = bytes((name.book, len(key))) + key
    if isinstance(entry, Told):
        return head + _TOLD.pack(entry.level, entry.want, entry.given)
    return head + _CLAIM.pack(entry.claimed, entry.demand)


def _entries(data: bytes) -> tuple[tuple[Name, Told | Claim], ...] | None:
    try:
        return tuple(_read(data))
    except (ValueError, IndexError, struct.error):
        return None


def _read(data: bytes) -> Iterator[tuple[Name, Told | Claim]]:
    at = 0
    while at < len(data):
        book, length = Book(data[at]), data[at + 1]
        key = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        if book in _SLOT_BOOKS:
            yield Name(book, key), Claim(*_CLAIM.unpack_from(data, at))
            at += _CLAIM.size
        else:
            values = _TOLD.unpack_from(data, at)
            if not all(math.isfinite(one) and abs(one) < _LARGEST for one in values):
                raise ValueError("no amount")
            yield Name(book, key), Told(*values)
            at += _TOLD.size
