"""What the Tenant controllers read: Tenants and key Secrets, each parsed once per version."""

from __future__ import annotations

from controllers.plans.keyring import NOTHING, Keyring, KeySecret, Published, keeps_published, keyring
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


class Keys:
    """The keyring of now: computed again only when a Tenant's spec or a Secret changed."""

    def __init__(self, tenants: Tenants, secrets: Informer[KeySecret]) -> None:
        self._tenants, self._secrets = tenants, secrets
        self._made_from: object = None
        self._rings: dict[bytes, Keyring] = {}

    def ring(self, pepper: bytes, published: Published = NOTHING) -> Keyring:
        """Hashes and problems of all Tenants. `published`: what the keyring said until now."""
        everyone = self._tenants.all()
        versions = sorted((tenant.uid, tenant.generation) for tenant in everyone)
        secrets = sorted(self._secrets.items(), key=lambda one: one.name)
        if self._made_from != (versions, secrets):
            self._made_from = (versions, secrets)
            self._rings = {}
        if any(keeps_published(tenant) for tenant in everyone):
            return keyring(everyone, secrets, pepper, published)
        if pepper not in self._rings:
            self._rings[pepper] = keyring(everyone, secrets, pepper)
        return self._rings[pepper]
