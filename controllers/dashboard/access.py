"""Who may look: the API server judges the token (TokenReview) and the permission (SubjectAccessReview).

No token is kept, only its hash, and only for a minute. Never open: without a token only where the administrator chose
read-only access for all.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kube.api import Api
from kube.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Resource

BELIEVED_S: Final = 60.0
MOST_REMEMBERED: Final = 1000
_TOKEN_BYTES: Final = 16_384
NEEDED: Final = {"group": "foretide.dev", "resource": "inferenceservices", "verb": "list"}


class Refused(Exception):
    """Nobody we know (401), or somebody who may not (403)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who may look; `user` is None for everybody."""

    user: str | None


class Access:
    """One answer a token and minute."""

    def __init__(self, client: Api, *, anonymous: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._anonymous, self._clock = client, anonymous, clock
        self._known: dict[bytes, tuple[float, Viewer | Refused]] = {}

    async def viewer(self, authorization: str | None) -> Viewer:
        """Raises Refused, or KubeError where the API server does not answer."""
        token = _bearer(authorization)
        if token is None:
            if self._anonymous:
                return Viewer(None)
            raise Refused(401, "Sign in with a Kubernetes token that may list inferenceservices.")
        key = hashlib.sha256(token.encode()).digest()
        asked_s, answer = self._known.get(key, (float("-inf"), None))
        if answer is None or self._clock() - asked_s > BELIEVED_S:
            answer = await self._judge(token)
            self._remember(key, answer)
        if isinstance(answer, Refused):
            raise answer
        return answer

    def _remember(self, key: bytes, answer: Viewer | Refused) -> None:
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = (self._clock(), answer)

    async def _judge(self, token: str) -> Viewer | Refused:
        review = await self._ask(TOKEN_REVIEWS, {"token": token})
        if not review.get("authenticated"):
            return Refused(401, "The API server does not accept this token. It may have expired: create a new one.")
        user = review["user"]
        extra = {key: list(values) for key, values in (user.get("extra") or {}).items()}
        asked = {
            "user": user["username"],
            "uid": user.get("uid", ""),
            "groups": user.get("groups") or [],
            "extra": extra,
            "resourceAttributes": NEEDED,
        }
        allowed = (await self._ask(SUBJECT_ACCESS_REVIEWS, asked)).get("allowed")
        if not allowed:
            return Refused(
                403, f"'{user['username']}' may not list inferenceservices in all namespaces. Ask for that permission."
            )
        return Viewer(user["username"])

    async def _ask(self, resource: Resource, spec: dict[str, Any]) -> dict[str, Any]:
        made = await self._client.create(
            resource, {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {}, "spec": spec}
        )
        status: dict[str, Any] = made.get("status") or {}
        return status


def _bearer(authorization: str | None) -> str | None:
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= _TOKEN_BYTES or not token.isascii():
        return None
    return token.strip() or None
