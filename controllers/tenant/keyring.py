"""Writes the Secret `foretide-keyring` that gateways watch: keyed hashes of all valid keys, never a key.

Runs beside the reconcilers, since it belongs to all Tenants together. The pepper is made once and never replaced: with
another one every hash would be another, and a gateway that has the old Secret would refuse every client.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import random
from collections.abc import Callable
from typing import Final

from controllers.apply import Applier
from controllers.plans.keyring import published_in
from controllers.tenant.reading import Keys
from crds.contract import KEYRING_HASHES, KEYRING_PEPPER, LABEL_MANAGED_BY, MANAGED_BY, SECRET_KEYRING
from kube.api import Api
from kube.backoff import Backoff
from kube.errors import AlreadyExists, KubeError
from kube.informer import Informer
from kube.resources import SECRETS, Object

log = logging.getLogger(__name__)

PEPPER_BYTES: Final = 32
LOOK_EVERY_S: Final = 60.0
RETRY: Final = Backoff(first_s=0.2, factor=2.0, most_s=5.0)


class KeyringWriter:
    """`run` while leading. `wake` whenever a Tenant, a key Secret or the keyring changed."""

    def __init__(
        self,
        client: Api,
        namespace: str,
        keys: Keys,
        keyring: Informer[Object],
        applier: Applier,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._client, self._namespace = client, namespace
        self._keys, self._keyring, self._applier = keys, keyring, applier
        self._random_bytes = random_bytes
        self._changed = asyncio.Event()
        self._rng = random.Random()

    def wake(self) -> None:
        """Something that the keyring is made of changed."""
        self._changed.set()

    async def run(self) -> None:
        """Keep it right until cancelled."""
        failures = 0
        while True:
            self._changed.clear()
            try:
                await self.write()
                failures, delay_s = 0, LOOK_EVERY_S
            except KubeError as error:
                failures += 1
                delay_s = RETRY.delay_s(failures, self._rng)
                log.warning("The keyring was not written, next try in %.1f s: %s", delay_s, error)
            await self._pause(delay_s)

    async def write(self) -> None:
        """One look: nothing is written when nothing changed."""
        observed = self._keyring.get(self._namespace, SECRET_KEYRING)
        if observed is None:
            await self._create()
            return
        pepper = pepper_of(observed)
        if pepper is None:
            await self._add_pepper(observed)
            return
        hashes = self._keys.ring(pepper, published_in(_decoded(observed, KEYRING_HASHES))).json()
        wanted = _manifest(self._namespace, {KEYRING_HASHES: _encoded(hashes.encode())})
        if await self._applier.ensure(wanted, observed):
            log.info("The keyring was written.")

    async def _create(self) -> None:
        """A create, not an apply: whoever comes second must not replace the pepper of the first."""
        data = {KEYRING_PEPPER: _encoded(self._random_bytes(PEPPER_BYTES))}
        try:
            await self._client.create(SECRETS, _manifest(self._namespace, data))
        except AlreadyExists:
            log.info("The keyring exists already; waiting for it to show.")

    async def _add_pepper(self, observed: Object) -> None:
        log.warning("The keyring had no usable pepper: a new one is made, and gateways learn all keys anew.")
        data = {KEYRING_PEPPER: _encoded(self._random_bytes(PEPPER_BYTES))}
        version = observed["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version}, "data": data}
        await self._client.merge_patch(SECRETS, self._namespace, SECRET_KEYRING, patch)

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._changed.wait()
        except TimeoutError:
            return


def pepper_of(keyring: Object | None) -> bytes | None:
    """The pepper, None when there is none or it is not 32 bytes."""
    found = _decoded(keyring, KEYRING_PEPPER)
    return found if len(found) == PEPPER_BYTES else None


def _decoded(keyring: Object | None, entry: str) -> bytes:
    """Empty where it is missing or no base64."""
    try:
        return base64.b64decode(((keyring or {}).get("data") or {}).get(entry) or "", validate=True)
    except binascii.Error:
        return b""


def _manifest(namespace: str, data: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET_KEYRING, "namespace": namespace, "labels": {LABEL_MANAGED_BY: MANAGED_BY}},
        "type": "Opaque",
        "data": data,
    }


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()
