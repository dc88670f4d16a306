"""With whom a Tenant shares what workers keep of prompts: a salt for each Tenant, or one for all of its cache domain.

Workers mix the salt into the keys of cached prefixes, and routing into the keys of prompts, so that no Tenant sees by
timing what another one asked. A salt is made of the keyring's secret: every gateway makes the same one,
nobody else can.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import replace

from gateway.catalog import Tenant

SALT_BYTES = 16


def salt_of(tenant: Tenant, pepper: bytes) -> bytes:
    """Hexadecimal. A domain never has the salt of a Tenant of its name."""
    whose = f"tenant\0{tenant.name}" if tenant.cache_domain is None else f"domain\0{tenant.cache_domain}"
    return hmac.digest(pepper, f"cache salt\0{whose}".encode(), "sha256")[:SALT_BYTES].hex().encode()


class Salter:
    """Remembers what it has salted, so that an unchanged Tenant stays the same object."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Tenant, bytes, Tenant]] = {}

    def salted(self, tenants: Iterable[Tenant], pepper: bytes) -> dict[str, Tenant]:
        """By name, each with its salt."""
        known, self._known = self._known, {}
        for tenant in tenants:
            before = known.get(tenant.name)
            if before is None or before[0] is not tenant or before[1] != pepper:
                before = tenant, pepper, replace(tenant, cache_salt=salt_of(tenant, pepper))
            self._known[tenant.name] = before
        return {name: salted for name, (_, _, salted) in self._known.items()}
