"""From an API key to a tenant, without ever holding the valid keys.

The keyring has keyed hashes only, so that a copy of it lets nobody in. A key is looked up by its hash: what differs in
time is the search for a digest that an attacker cannot steer without the pepper. Never logs a key.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.errors import Unauthenticated

CACHE_ENTRIES = 4096
MAX_KEY_BYTES = 512
_SCHEME = b"bearer "


@dataclass(frozen=True, slots=True)
class Keyring:
    """Which tenant each valid key belongs to; keys appear as `hmac_sha256(pepper, key)`."""

    pepper: bytes = field(default=b"", repr=False)
    tenants: Mapping[bytes, str] = field(default_factory=dict, repr=False)

    def digest(self, key: bytes) -> bytes:
        return hmac.digest(self.pepper, key, "sha256")


def keyring_of(pepper: bytes, hashes: Mapping[str, list[str]]) -> Keyring:
    """A keyring from the operator's form: tenant → hex digests.

    Raises:
        ValueError: a digest is not hexadecimal, or two tenants share one.
    """
    tenants: dict[bytes, str] = {}
    for tenant, digests in hashes.items():
        for digest in digests:
            other = tenants.setdefault(bytes.fromhex(digest), tenant)
            if other != tenant:
                raise ValueError(f"tenants '{other}' and '{tenant}' share an API key; give each its own")
    return Keyring(pepper, tenants)


class Authenticator:
    """Remembers the outcome for keys that were valid, until the keyring changes."""

    def __init__(self) -> None:
        self._keyring = Keyring()
        self._known: dict[bytes, str] = {}

    def replace(self, keyring: Keyring) -> None:
        """Every key is checked anew from here on, so that a removed one is refused at once."""
        if keyring is not self._keyring:
            self._keyring = keyring
            self._known = {}

    def tenant(self, authorization: bytes | None) -> str:
        """The name of the tenant that the `Authorization` header speaks for.

        Raises:
            Unauthenticated: there is no key in it, or one that is not valid.
        """
        if authorization is None:
            raise Unauthenticated(
                "You didn't provide an API key. Send it in the header `Authorization: Bearer YOUR_KEY`."
            )
        tenant = self._known.get(authorization)
        return tenant if tenant is not None else self._look_up(authorization)

    def _look_up(self, authorization: bytes) -> str:
        key = authorization[len(_SCHEME) :].strip()
        if authorization[: len(_SCHEME)].lower() != _SCHEME or not key or len(key) > MAX_KEY_BYTES:
            raise Unauthenticated("The header `Authorization` must read `Bearer YOUR_KEY`.")
        tenant = self._keyring.tenants.get(self._keyring.digest(key)) if self._keyring.pepper else None
        if tenant is None:
            raise Unauthenticated("The API key is not valid. Ask the owner of your Tenant for a current one.")
        if len(self._known) >= CACHE_ENTRIES:
            self._known = {}
        self._known[authorization] = tenant
        return tenant
