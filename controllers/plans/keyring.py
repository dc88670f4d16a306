"""Which API keys speak for which Tenant: hashes for the gateway, and what is wrong with the Secrets.

Only keyed hashes leave this module; no message repeats a key or a part of one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

from controllers.plans.tenancy import Tenant
from crds.contract import LABEL_API_KEY
from crds.reading import concerns

SHORTEST_KEY_CHARACTERS: Final = 16
Published = Mapping[str, Sequence[str]]
"""Tenant → hashes of keys."""
NOTHING: Final[Published] = {}


@dataclass(frozen=True, slots=True)
class KeySecret:
    """A Secret with API keys, each entry one key. `repr` shows no key."""

    name: str
    entries: Mapping[str, str | None]
    """Entry → key, None where the entry is not text."""

    def __repr__(self) -> str:
        return f"KeySecret({self.name!r}, {len(self.entries)} entries)"

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> KeySecret:
        """From the object as JSON. White space around a key is not part of it: files often end in a newline."""
        return cls(obj["metadata"]["name"], {entry: _text(value) for entry, value in (obj.get("data") or {}).items()})


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a person has to put right."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Keyring:
    """Result for all Tenants together."""

    hashes: Mapping[str, Sequence[str]]
    """Tenant → sorted hashes of its keys; each Tenant is there, even without keys."""
    problems: Mapping[str, Sequence[Problem]]

    def json(self) -> str:
        """What the gateway reads; the same keys give the same text."""
        return json.dumps({name: list(hashes) for name, hashes in sorted(self.hashes.items())}, separators=(",", ":"))


def keyring(
    tenants: Collection[Tenant], secrets: Iterable[KeySecret], pepper: bytes, published: Published = NOTHING
) -> Keyring:
    """The hashes of every valid key. A key that two Tenants have is valid for neither.

    A Tenant whose `apiKeys` cannot be read keeps those that were `published` for it, as long as a Secret has them: so a
    key is still taken away by taking it out of its Secret.
    """
    by_name = {secret.name: secret for secret in secrets}
    found = {tenant.name: _keys_of(tenant, by_name) for tenant in tenants}
    for tenant in tenants:
        if keeps_published(tenant):
            known = set(published.get(tenant.name, ()))
            found[tenant.name][0].update(_still_there(by_name, known, pepper))
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for name, (keys, _) in found.items():
        for key in keys:
            holders[key].add(name)
    shared = {key: names for key, names in holders.items() if len(names) > 1}
    return Keyring(
        hashes={
            name: sorted({key_hash(pepper, key) for key in keys if key not in shared})
            for name, (keys, _) in found.items()
        },
        problems={name: [*problems, *_shared(name, keys, shared)] for name, (keys, problems) in found.items()},
    )


def keeps_published(tenant: Tenant) -> bool:
    """Which keys it has is not known."""
    return concerns(tenant.unread, "apiKeys")


def published_in(text: str | bytes | None) -> Published:
    """What a keyring's `json` said. Nothing of one that was damaged: it is written anew."""
    try:
        said = json.loads(text or "{}")
    except ValueError:
        return NOTHING
    return said if isinstance(said, dict) else NOTHING


def _still_there(secrets: Mapping[str, KeySecret], known: AbstractSet[str], pepper: bytes) -> Iterator[tuple[str, str]]:
    """Key → `secret/entry`, of those of a known hash."""
    for secret in secrets.values():
        for entry, key in secret.entries.items():
            if key is not None and key_hash(pepper, key) in known:
                yield key, f"{secret.name}/{entry}"


def key_hash(pepper: bytes, key: str) -> str:
    """`hmac_sha256(pepper, key)` in hex."""
    return hmac.new(pepper, key.encode(), hashlib.sha256).hexdigest()


def _keys_of(tenant: Tenant, secrets: Mapping[str, KeySecret]) -> tuple[dict[str, str], list[Problem]]:
    """Key → `secret/entry` it comes from, and what is wrong."""
    keys: dict[str, str] = {}
    problems: list[Problem] = []
    for ref in tenant.spec.api_keys or []:
        secret = secrets.get(ref.secret)
        if secret is None:
            problems.append(_missing(ref.secret))
            continue
        if not secret.entries:
            problems.append(
                Problem("SecretEmpty", f"Secret '{ref.secret}' has no entries; put one API key into each entry.")
            )
        for entry, key in sorted(secret.entries.items()):
            wrong = _wrong(ref.secret, entry, key)
            if wrong is None and key is not None:
                keys[key] = f"{ref.secret}/{entry}"
            elif wrong is not None:
                problems.append(wrong)
    return keys, problems


def _missing(name: str) -> Problem:
    return Problem(
        "SecretNotFound",
        f"Secret '{name}' is not in the operator's namespace or lacks the label {LABEL_API_KEY}: \"true\";"
        f" create it there, or run: kubectl label secret {name} {LABEL_API_KEY}=true",
    )


def _wrong(secret: str, entry: str, key: str | None) -> Problem | None:
    where = f"Entry '{entry}' of Secret '{secret}'"
    if key is None:
        return Problem("KeyNotText", f"{where} is not UTF-8 text; write the key as letters and digits.")
    if len(key) < SHORTEST_KEY_CHARACTERS:
        return Problem(
            "KeyTooShort",
            f"{where} has {len(key)} characters; a key needs at least {SHORTEST_KEY_CHARACTERS}."
            " Make one with: openssl rand -hex 24",
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        return Problem(
            "KeyNotSendable", f"{where} has characters that an HTTP header cannot carry; use letters and digits."
        )
    return None


def _shared(tenant: str, keys: Mapping[str, str], shared: Mapping[str, set[str]]) -> list[Problem]:
    return [
        Problem(
            "KeyShared",
            f"The key in '{where}' is also a key of Tenant '{min(shared[key] - {tenant})}', so it speaks for neither;"
            " give each Tenant its own key.",
        )
        for key, where in sorted(keys.items(), key=lambda pair: pair[1])
        if key in shared
    ]


def _text(value: str) -> str | None:
    try:
        return base64.b64decode(value, validate=True).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        return None
