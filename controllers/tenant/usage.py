"""What each Tenant borrows, measured between two publications.

Keeps in memory only the part since the last one: after a restart the published average goes on, with what is borrowed
then in the place of what was borrowed meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from controllers.plans.fair_share import Usage
from controllers.plans.tenancy import Tenant
from controllers.plans.times import unix_s


class Meters:
    """One for each Tenant of a cohort."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Usage, Mapping[str, int]]] = {}
        self._told: dict[str, Mapping[str, Any]] = {}
        """Uid → `status.fairShare` as last published here."""

    def read(
        self, tenant: Tenant, told: Mapping[str, Any], borrowed: Mapping[str, int], now_s: float, half_life_s: float
    ) -> Usage:
        """Its average until now; from now on it has `borrowed`. `told` is `status.fairShare`."""
        assert tenant.spec.borrowing is not None, "only a cohort has a half-life"
        key = (tenant.uid, tenant.spec.borrowing.cohort)
        usage, before = self._known.get(key) or (Usage(now_s), borrowed)
        published = _told(tenant, told, now_s)
        # Of the two the later: another replica of the operator may have led meanwhile.
        if published and (key not in self._known or published.at_s > usage.at_s):
            usage, before = published, borrowed
        usage = usage.after(before, now_s, half_life_s)
        self._known[key] = (usage, dict(borrowed))
        return usage

    def newest(self, uid: str, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """What was published last: the cache may still show `told`, from before, and all of a cohort publish once."""
        ours = self._told.get(uid, told)
        return told if told.get("sampledAt", "") >= ours.get("sampledAt", "") else ours

    def publish(self, uid: str, told: Mapping[str, Any]) -> None:
        """It was written."""
        self._told[uid] = told

    def forget(self, uid: str) -> None:
        """It is in no cohort any more."""
        self._known = {key: known for key, known in self._known.items() if key[0] != uid}
        self._told.pop(uid, None)

    def keep(self, uids: AbstractSet[str]) -> None:
        """The others are gone."""
        self._known = {key: known for key, known in self._known.items() if key[0] in uids}
        self._told = {uid: told for uid, told in self._told.items() if uid in uids}


def _told(tenant: Tenant, told: Mapping[str, Any], now_s: float) -> Usage | None:
    borrowing = tenant.spec.borrowing
    if borrowing is None or told.get("cohort") != borrowing.cohort:
        return None
    return Usage(min(unix_s(told["sampledAt"]), now_s), tenant.borrowed)
