"""Values of Secrets that policies name: only of Secrets that say they are for this, read when needed, kept briefly.

Without the label, whoever may write an AlertPolicy could send any Secret of its namespace anywhere.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from typing import Final

from crds.alert_policy import SecretKey
from crds.contract import LABEL_ALERT_RECEIVER
from kube.api import Api
from kube.errors import Forbidden, KubeError, NotFound
from kube.resources import SECRETS, Object

KEPT_S: Final = 30.0


class SecretProblem(Exception):
    """The value cannot be had; the sentence says what to do."""


class Secrets:
    """One reader for all policies."""

    def __init__(self, client: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._clock = client, clock
        self._kept: dict[tuple[str, str], tuple[float, Object]] = {}

    async def value(self, namespace: str, where: SecretKey) -> str:
        """Raises SecretProblem."""
        secret = await self._secret(namespace, where.name)
        if (secret["metadata"].get("labels") or {}).get(LABEL_ALERT_RECEIVER) != "true":
            raise SecretProblem(
                f"Secret '{where.name}' has no label {LABEL_ALERT_RECEIVER}=true. Label it, if it is meant for alerts."
            )
        text = (secret.get("data") or {}).get(where.key)
        if text is None:
            raise SecretProblem(f"Secret '{where.name}' has no entry '{where.key}'. Add it, or name another.")
        try:
            return base64.b64decode(text, validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise SecretProblem(f"Entry '{where.key}' of Secret '{where.name}' is not text. Write it anew.") from error

    async def _secret(self, namespace: str, name: str) -> Object:
        now_s = self._clock()
        self._kept = {place: one for place, one in self._kept.items() if now_s - one[0] < KEPT_S}
        kept = self._kept.get((namespace, name))
        if kept is not None:
            return kept[1]
        try:
            secret = await self._client.get(SECRETS, namespace, name)
        except NotFound as error:
            raise SecretProblem(
                f"Secret '{name}' is not in namespace '{namespace}'. Create it, or name another."
            ) from error
        except Forbidden as error:
            raise SecretProblem(
                f"The operator may not read Secrets of namespace '{namespace}'. The administrator adds it to the Helm"
                " value alerting.secretNamespaces."
            ) from error
        except KubeError as error:
            raise SecretProblem(f"Secret '{name}' cannot be read now: {error}") from error
        self._kept[namespace, name] = (now_s, secret)
        return secret
