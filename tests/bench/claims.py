"""Ratio 4: what claiming costs in a record of a million rows, against one of ten thousand with as many due."""

import asyncio
import time
from contextlib import AsyncExitStack
from statistics import median

from service.clock import SystemClock
from service.delivery import PROVIDER_LANE, Schedule, Store
from service.store import open_store
from tests.bench.ground import Ground
from tests.bench.rows import fill
from tests.bench.table import Figure
from tests.fakes import ACCOUNT

_TARGET = 1.5
_AT_ONCE = 16
_LATER = 7200.0  # seconds
_SHARE = 0.8  # of what is due is claimed; the last ones are not what a queue is like


async def measure(ground: Ground) -> list[Figure]:
    """Measure on every database."""
    return [await _measured(ground, database) for database in ground.databases]


async def _measured(ground: Ground, database: str) -> Figure:
    size = ground.size
    large, small = ground.fresh(database), ground.fresh(database)
    seconds = fill(large, size.rows, due=size.due)
    fill(small, size.few_rows, due=size.due)
    ground.say(f"  {database}: {size.rows} rows in {seconds:.0f} s")
    took: dict[str, list[float]] = {large: [], small: []}
    async with AsyncExitStack() as stack:
        stores = {
            url: await stack.enter_async_context(open_store(url, clock=SystemClock(), migrate=False)) for url in took
        }
        # By turns, so that whatever else the machine does falls on both.
        for _ in range(int(size.due * _SHARE) // _AT_ONCE):
            for url, store in stores.items():
                took[url].append(await _claimed(store))
    ours, baseline = (median(took[url]) * 1000 for url in (large, small))
    return Figure(
        number=4,
        what=f"claiming {_AT_ONCE} of {size.due} due, {database}",
        ours=f"{ours:.2f} ms of {size.rows:,} rows",
        baseline=f"{baseline:.2f} ms of {size.few_rows:,} rows",
        value=ours / baseline,
        target=_TARGET,
    )


async def _claimed(store: Store) -> float:
    """Claim some, give them back as one who has postponed them, and return what the claim took in seconds."""
    began = time.perf_counter()
    claims = await store.claim(ACCOUNT, PROVIDER_LANE, _AT_ONCE, lease=600, suspects=False)
    seconds = time.perf_counter() - began
    assert len(claims) == _AT_ONCE
    later = Schedule(due_in=_LATER)
    await asyncio.gather(*(store.save(claim, claim.delivery, later) for claim in claims))
    return seconds
