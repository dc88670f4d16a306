"""Quiet: when nothing changes, nothing is written; neither by an operator that runs nor by one that has just begun."""

from __future__ import annotations

import asyncio
import contextlib
import time

from e2e.faults.crash import place
from e2e.faults.ground import Ground
from e2e.faults.story import Story, settled
from e2e.faults.telling import WORLD, clean, troubles


async def kept(ground: Ground, lasts_s: float, within_s: float) -> tuple[list[str], bool, dict[str, float]]:
    """Half of the time with the operator that made it all, half of it with a new one."""
    ended, log = len(ground.lives.ended), ground.lives.log_bytes()
    await Story(WORLD).go(ground, "declared")
    wrong: list[str] = []
    reads = ground.proxy.reads
    for who in ("the same operator", "a new operator"):
        with contextlib.suppress(TimeoutError):  # One that never ends to write is told below.
            await settled(ground, WORLD, within_s)
        before = len(ground.proxy.writes)
        if who == "a new operator":
            await ground.lives.again()
        await asyncio.sleep(lasts_s / 2)
        # What the server refuses changes nothing: whether a cluster knows PrometheusRules is asked by writing one.
        written = [one for one in ground.proxy.writes[before:] if one.answer.is_success]
        if written:
            what = sorted({" ".join(place(one.call)) for one in written})
            wrong.append(f"{who} wrote {len(written)} times: {', '.join(what[:4])}")
    wrong += troubles(ground, ended, log)
    counted = {"seconds": lasts_s, "reads": float(ground.proxy.reads - reads)}
    began_s = time.monotonic()
    await clean(ground, WORLD)
    return wrong, True, counted | {"seconds to the end": time.monotonic() - began_s}
