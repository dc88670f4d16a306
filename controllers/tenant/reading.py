"""What the Tenant controllers read: Tenants and key Secrets, each parsed once per version."""

from __future__ import annotations

from dataclasses import dataclass

from controllers.plans.keyring import Keyring, KeySecret, keyring
from controllers.plans.tenancy import Tenant
from kube.informer import Informer
from kube.resources import Object


class Tenants:
    """All Tenants as plans see them."""

    def __init__(self, informer: Informer[Object]) -> None:
        self._informer = informer
        self._parsed: dict[str, tuple[str, Tenant]] = {}

    def get(self, name: str) -> Object | None:
        """The object itself."""
        return self._informer.get(None, name)

    def all(self) -> list[Tenant]:
        """Every Tenant, parsed."""
        parsed: dict[str, tuple[str, Tenant]] = {}
        for obj in self._informer.items():
            uid, version = obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]
            known = self._parsed.get(uid)
            parsed[uid] = known if known is not None and known[0] == version else (version, Tenant.of(obj))
        self._parsed = parsed
        return [tenant for _, tenant in parsed.values()]


@dataclass(frozen=True, slots=True)
class _Made:
    tenants: tuple[tuple[str, int], ...]
    secrets: tuple[KeySecret, ...]
    pepper: bytes
    ring: Keyring


class Keys:
    """The keyring of now: computed again only when a Tenant's spec, a Secret or the pepper changed."""

    def __init__(self, tenants: Tenants, secrets: Informer[KeySecret]) -> None:
        self._tenants, self._secrets = tenants, secrets
        self._made: _Made | None = None

    def ring(self, pepper: bytes) -> Keyring:
        """Hashes and problems of all Tenants."""
        everyone = self._tenants.all()
        versions = tuple(sorted((tenant.uid, tenant.generation) for tenant in everyone))
        secrets = tuple(sorted(self._secrets.items(), key=lambda one: one.name))
        made = self._made
        if made is None or (made.tenants, made.secrets, made.pepper) != (versions, secrets, pepper):
            made = self._made = _Made(versions, secrets, pepper, keyring(everyone, secrets, pepper))
        return made.ring
