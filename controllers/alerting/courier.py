"""Takes one message to one receiver. The address that is connected to is the address that was checked; no redirects.

What a receiver answers is never shown, only its code: a policy must not become a way to read what lies behind a URL.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, Protocol

import aiohttp
import orjson
from yarl import URL

from controllers.alerting.secrets import SecretProblem, Secrets
from controllers.alerting.slots import OF_ALL
from controllers.guard import AddressGuard, AddressRefused, GuardedResolver
from controllers.plans.alerting import payloads
from controllers.plans.alerting.book import Policy
from controllers.plans.alerting.notices import Notice
from crds.alert_policy import Receiver

TIMEOUT_S: Final = 10.0
ADVICE: Final = (
    "If receivers may be there, the administrator allows its network in the Helm value alerting.allowPrivateNetworks."
)
_MOST_PATIENCE_S: Final = 300.0
_NOT_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ValueError)
"""Errors from before anything was sent."""


class DeliveryFailed(Exception):
    """The receiver did not take the message. `retry_after_s` is what it asked for; `doubtful`: it may have taken it."""

    def __init__(self, message: str, retry_after_s: float | None = None, *, doubtful: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s, self.doubtful = retry_after_s, doubtful


class Messenger(Protocol):
    """What the desk needs of a courier."""

    async def send(self, notice: Notice, policy: Policy) -> None:
        """Raises DeliveryFailed."""
        ...

    async def close(self) -> None:
        """Ends connections."""
        ...


class Courier:
    """A `Messenger` over HTTP."""

    def __init__(self, guard: AddressGuard, secrets: Secrets, timeout_s: float = TIMEOUT_S) -> None:
        self._guard, self._secrets, self._timeout_s = guard, secrets, timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def send(self, notice: Notice, policy: Policy) -> None:
        try:
            url, headers, body = await self._message(notice, policy)
        except SecretProblem as error:
            raise DeliveryFailed(str(error)) from error
        await self._post(url, headers | _once(notice, policy), body)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _message(self, notice: Notice, policy: Policy) -> tuple[str, dict[str, str], dict[str, Any]]:
        """Raises SecretProblem."""
        receiver, where = notice.receiver, (policy.namespace, policy.name)
        if receiver.pager_duty is not None:
            key = await self._secrets.value(policy.namespace, receiver.pager_duty.routing_key_secret)
            return receiver.pager_duty.url, {}, payloads.pagerduty(notice, *where, key)
        if receiver.slack is not None:
            url = await self._secrets.value(policy.namespace, receiver.slack.url_secret)
            return url, {}, payloads.slack(notice, *where)
        return await self._webhook(receiver, notice, policy)

    async def _webhook(
        self, receiver: Receiver, notice: Notice, policy: Policy
    ) -> tuple[str, dict[str, str], dict[str, Any]]:
        hook = receiver.webhook
        assert hook is not None, "the schema asks for one of the three"
        url, headers = hook.url, {}
        if hook.url_secret is not None:
            url = await self._secrets.value(policy.namespace, hook.url_secret)
        if hook.token_secret is not None:
            headers["Authorization"] = f"Bearer {await self._secrets.value(policy.namespace, hook.token_secret)}"
        assert url is not None, "the schema asks for url or urlSecret"
        return url, headers, payloads.webhook(notice, policy.namespace, policy.name)

    async def _post(self, text: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        try:
            url = URL(text)
            if url.scheme not in ("http", "https") or not url.host:
                raise DeliveryFailed("The receiver's URL is not http://host/… or https://host/…. Correct it.")
            self._guard.check_literal(url.host)
            async with self._open().post(
                url, data=orjson.dumps(body), headers=headers, allow_redirects=False
            ) as answer:
                _judge(answer)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            refused = _refusal(error)
            # Errors of the client repeat the URL, which may be a secret.
            text = refused or f"The receiver cannot be reached ({type(error).__name__})."
            raise DeliveryFailed(text, doubtful=not isinstance(error, _NOT_SENT)) from None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=GuardedResolver(self._guard), use_dns_cache=False, limit=OF_ALL, force_close=True
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=self._timeout_s / 2),
                headers={"User-Agent": "foretide", "Content-Type": "application/json"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _once(notice: Notice, policy: Policy) -> dict[str, str]:
    """The same for every attempt to say the same: a receiver that knows the header takes it once."""
    said = notice.incident.deliveries.get(notice.receiver.name)
    before = f"{said.said} {said.said_s:.3f}" if said is not None and said.said is not None else ""
    key = payloads.group_key(notice, policy.namespace, policy.name)
    text = f"{key} {notice.receiver.name} {notice.status} {notice.digest} {before}"
    return {"Idempotency-Key": hashlib.sha256(text.encode()).hexdigest()[:32]}


def _judge(answer: aiohttp.ClientResponse) -> None:
    if 200 <= answer.status < 300:
        return
    if 300 <= answer.status < 400:
        raise DeliveryFailed(f"The receiver redirects ({answer.status}), which is not followed. Name the last URL.")
    hint = " Check its URL and its key." if answer.status in (400, 401, 403, 404) else ""
    # A proxy says so, too, when what lies behind it has taken the message and not answered.
    doubtful = answer.status >= 500 and answer.status != 503
    patience_s = _patience(answer.headers.get("Retry-After"))
    raise DeliveryFailed(f"The receiver answered {answer.status}.{hint}", patience_s, doubtful=doubtful)


def _patience(text: str | None) -> float | None:
    return min(float(text), _MOST_PATIENCE_S) if text is not None and text.isascii() and text.isdecimal() else None


def _refusal(error: BaseException | None) -> str | None:
    """The guard's own sentence, which names only the host."""
    while error is not None:
        if isinstance(error, AddressRefused):
            return str(error)
        error = getattr(error, "os_error", None) or error.__cause__ or error.__context__
    return None
