"""Periodic work that one process does for all: looking after missed callbacks, the subscription, old personal data."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from service.delivery import Clock, DeliveryFailure, Job, Store, StoreUnavailable
from service.metrics import Metrics

TRIED_AGAIN_AFTER = 60.0
"""Seconds that this process lets a chore rest that failed; another process may try it meanwhile."""
LONGEST_LOOK = 60.0
"""The most seconds between two looks whether a chore is due."""
_OF_THE_LEASE = 0.9  # how much of its lease a turn may last: who takes over afterwards must be alone
_GIVING_BACK = 5.0  # seconds
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """Work that is done `every` so many seconds, by whichever process comes first.

    `run` returns the note for the next turn. It may be cut short anywhere, by a stop or because its `lease` (seconds)
    ends, and be done again from the start, so each of its steps must bear that.
    """

    name: str
    every: float
    run: Callable[[Job], Awaitable[str | None]]
    lease: float = 900.0


class Chores:
    """Does the chores of one account, each in one process at a time and beside the others: an alert waits for none."""

    def __init__(
        self,
        chores: Sequence[Chore],
        *,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        account_id: str,
        stop_grace: float,
        poll: float = 1.0,
    ) -> None:
        self._chores = tuple(chores)
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._account_id = account_id
        self._stop_grace = stop_grace
        self._poll = poll
        self._not_before = dict.fromkeys((chore.name for chore in self._chores), clock.monotonic())
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Begin no more; `run` returns when the chore in hand is done or STOP_GRACE has passed."""
        self._stopping.set()

    async def run(self) -> None:
        """Do what falls due until `stop`."""
        working = [asyncio.create_task(self._for_ever(chore)) for chore in self._chores]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({*working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if working:
                await asyncio.wait(working, timeout=self._stop_grace)
        finally:
            for task in (*working, stopping):
                task.cancel()
            await asyncio.gather(*working, stopping, return_exceptions=True)
        for task in working:
            if not task.cancelled():
                task.result()

    async def look(self) -> tuple[str, ...]:
        """Do once what is due, of what this process has not looked at just now; return the names of what was done."""
        done = []
        for chore in self._chores:
            if self._stopping.is_set():
                break
            if await self._look_at(chore):
                done.append(chore.name)
        return tuple(done)

    async def _for_ever(self, chore: Chore) -> None:
        while not self._stopping.is_set():
            await self._look_at(chore)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._poll)

    async def _look_at(self, chore: Chore) -> bool:
        return self._clock.monotonic() >= self._not_before[chore.name] and await self._take(chore)

    async def _take(self, chore: Chore) -> bool:
        """Do a chore if this process gets its turn; return whether it did it to the end."""
        rest = TRIED_AGAIN_AFTER
        try:
            async with asyncio.timeout(None) as limit:  # from before the lease begins until before it ends
                began = asyncio.get_running_loop().time()
                job = await self._store.take_job(self._job_name(chore), every=chore.every, lease=chore.lease)
                if job is None:
                    rest = min(chore.every / 60, LONGEST_LOOK)
                    return False
                limit.reschedule(began + _OF_THE_LEASE * chore.lease)
                await self._do(chore, job)
        except TimeoutError:
            if not limit.expired():
                self._unexpected(chore)
            else:
                self._failed(chore, f"not done within {_OF_THE_LEASE * chore.lease:g} s")
        except (DeliveryFailure, StoreUnavailable) as exc:
            self._failed(chore, str(exc))
        except Exception:  # noqa: BLE001 - a bug in one chore: logged whole, and the others are done all the same
            self._unexpected(chore)
        else:
            rest = min(chore.every / 60, LONGEST_LOOK)
            return True
        finally:
            self._not_before[chore.name] = self._clock.monotonic() + rest
        return False

    async def _do(self, chore: Chore, job: Job) -> None:
        try:
            note = await chore.run(job)
        except BaseException:
            # Cut short too: the turn is given back, so that it need not wait until the lease ends.
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(_GIVING_BACK):
                    await self._store.end_job(job, done=False)
            raise
        await self._store.end_job(job, done=True, note=note)

    def _job_name(self, chore: Chore) -> str:
        return f"{self._account_id}:{chore.name}"  # several accounts may share a database

    def _failed(self, chore: Chore, reason: str) -> None:
        self._metrics.alarm("alarm.chore_failed")
        _log.warning("alarm.chore_failed", chore=chore.name, reason=reason)

    def _unexpected(self, chore: Chore) -> None:
        """Report a bug; only called while its exception is handled."""
        self._metrics.alarm("alarm.unexpected_error")
        _log.exception("alarm.unexpected_error", chore=chore.name)
