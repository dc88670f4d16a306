"""Alertmanager's webhook on the operator's admin port: a bearer token is asked for before any of a body is read.

Sizes are bounded. Answers 200 only after the alerts are written down; anything else makes Alertmanager try again.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import sqlite3
from collections.abc import Mapping
from typing import Final

from controllers.alerting.desk import AlertDesk, NotReady, TooManyAlerts
from controllers.alerting.secrets import SecretProblem, Secrets
from controllers.plans.alerting.inbound import MessageRefused, read
from controllers.runtime.interface import Answer, Hook
from crds.alert_policy import SecretKey
from crds.contract import OPERATOR_PATH_ALERTS

log = logging.getLogger(__name__)

MOST_BYTES: Final = 16 * 2**20
TOKEN_KEY: Final = "token"


def alerts_hook(desk: AlertDesk, secrets: Secrets, namespace: str, secret: str | None) -> Hook:
    """`secret` names the Secret of the operator's namespace with the token; nobody may send when it is None."""

    async def refuse(headers: Mapping[str, str]) -> Answer | None:
        return await _authenticated(headers, secrets, namespace, secret)

    async def answer(body: bytes) -> Answer:
        try:
            taken = await desk.hear(await asyncio.to_thread(read, body))
        except MessageRefused as error:
            return Answer(400, f"{error}\n")
        except NotReady as error:
            return Answer(503, f"{error} Send it again.\n")
        except TooManyAlerts as error:
            log.warning("Alerts of an Alertmanager are refused. %s", error)
            return Answer(429, f"{error}\n")
        except sqlite3.Error as error:
            log.warning("Alerts of an Alertmanager were not written down: %s", error)
            return Answer(500, "The alerts were not written down. Send them again.\n")
        return Answer(200, f"{taken}\n")

    return Hook(OPERATOR_PATH_ALERTS, MOST_BYTES, refuse, answer)


async def _authenticated(
    headers: Mapping[str, str], secrets: Secrets, namespace: str, secret: str | None
) -> Answer | None:
    """None for one who may."""
    if secret is None:
        return Answer(403, "Nobody may send alerts here. Set the Helm value alerting.webhookSecret.\n")
    try:
        token = await secrets.value(namespace, SecretKey(name=secret, key=TOKEN_KEY))
    except SecretProblem as error:
        log.warning("Alerts of an Alertmanager are refused: %s", error)
        return Answer(503, "The token cannot be checked now.\n")
    scheme, _, said = headers.get("Authorization", "").partition(" ")
    found = said.strip().encode(errors="surrogateescape")  # aiohttp's way with bytes that are no UTF-8
    if scheme.lower() == "bearer" and token and hmac.compare_digest(found, token.encode()):
        return None
    return Answer(401, "A bearer token is asked for.\n")
