"""Who may look: the API server judges the token (TokenReview) and the permission (SubjectAccessReview).

No token is kept, only its hash, and only for a minute. Never open: without a token only where the administrator chose
read-only access for all.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from kube.api import Api
from kube.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Resource

BELIEVED_S: Final = 60.0
MOST_REMEMBERED: Final = 1000
AT_ONCE: Final = 4
MOST_WAITING: Final = 32
"""Tokens to be judged, those of known viewers apart: whoever sends junk takes little of the API server from others."""
_TOKEN_BYTES: Final = 16_384
NEEDED: Final = {"group": "foretide.dev", "resource": "inferenceservices", "verb": "list"}


A = TypeVar("A")


class Refused(Exception):
    """Nobody we know (401), or somebody who may not (403)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who may look; `user` is None for everybody."""

    user: str | None


class Answers(Generic[A]):
    """The last answers by token, those that nobody has asked for longest forgotten first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[float, A]] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def get(self, key: bytes, now_s: float) -> A | None:
        """None where it is unknown or too old."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        asked_s, answer = kept
        return answer if now_s - asked_s <= BELIEVED_S else None

    def keep(self, key: bytes, now_s: float, answer: A) -> None:
        self._kept[key] = (now_s, answer)
        self._kept.move_to_end(key)
        if len(self._kept) > MOST_REMEMBERED:
            self._kept.popitem(last=False)

    def forget(self, key: bytes) -> None:
        self._kept.pop(key, None)


class Access:
    """One answer a token and minute, however many ask at once."""

    def __init__(self, client: Api, *, anonymous: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._anonymous, self._clock = client, anonymous, clock
        self._viewers: Answers[Viewer] = Answers()
        self._refusals: Answers[Refused] = Answers()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting: dict[bytes, asyncio.Task[Viewer | Refused]] = {}

    async def viewer(self, authorization: str | None) -> Viewer:
        """Raises Refused, or KubeError where the API server does not answer."""
        token = _bearer(authorization)
        if token is None:
            if self._anonymous:
                return Viewer(None)
            raise Refused(401, "Sign in with a Kubernetes token that may list inferenceservices.")
        key = hashlib.sha256(token.encode()).digest()
        now_s = self._clock()
        answer = self._viewers.get(key, now_s) or self._refusals.get(key, now_s)
        if answer is None:
            # One person who leaves must not take the answer from the others.
            answer = await asyncio.shield(self._asked(key, token))
        if isinstance(answer, Refused):
            raise answer
        return answer

    def _asked(self, key: bytes, token: str) -> asyncio.Task[Viewer | Refused]:
        """One question for all who come with this token."""
        if key not in self._waiting:
            if len(self._waiting) >= MOST_WAITING and key not in self._viewers:
                raise Refused(503, f"Over {MOST_WAITING} other tokens wait to be checked. Try again soon.")
            self._waiting[key] = asyncio.create_task(self._in_turn(key, token), name="judge a token")
            self._waiting[key].add_done_callback(lambda asked: self._ended(key, asked))
        return self._waiting[key]

    def _ended(self, key: bytes, asked: asyncio.Task[Viewer | Refused]) -> None:
        del self._waiting[key]
        if not asked.cancelled():
            asked.exception()  # Whoever asked has it; perhaps all of them have left.

    async def _in_turn(self, key: bytes, token: str) -> Viewer | Refused:
        async with self._turns:
            answer = await self._judge(token)
        if isinstance(answer, Viewer):
            self._viewers.keep(key, self._clock(), answer)
        else:
            self._viewers.forget(key)
            self._refusals.keep(key, self._clock(), answer)
        return answer

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
