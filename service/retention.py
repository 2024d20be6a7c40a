"""Erasing what is personal in deliveries that were closed long enough ago."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from service.delivery import Clock, Entry, Job, Result, Step, Store

EVERY = 86400.0
"""Seconds between two turns."""
BATCH = 100
"""Deliveries that are erased in one transaction: callbacks wait for it."""
_MOST_BATCHES = 1000  # in one turn, which has to end; the next goes on
_BETWEEN = 0.1  # seconds that others have the record to themselves
_log = structlog.get_logger()


def retention(store: Store, *, account_id: str, days: int, clock: Clock) -> Callable[[Job], Awaitable[str | None]]:
    """Return the chore that erases what was closed more than so many days ago."""

    async def run(job: Job) -> str | None:
        before = job.now - timedelta(days=days)
        total = 0
        for _ in range(_MOST_BATCHES):
            words = f"personal data erased {days} days after it was closed"
            entry = Entry(at=clock.now(), step=Step.CLOSE, result=Result.ACCEPTED, detail=words)
            erased = await store.erase_old(account_id, before, limit=BATCH, entry=entry)
            total += erased
            if erased < BATCH:
                break
            await clock.sleep(_BETWEEN)
        if total:
            _log.info("service.erased", deliveries=total)
        return None

    return run
