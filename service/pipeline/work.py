"""A pass under way: what it knows, what it talks to, and the small things that every step of it does."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count

import structlog

from service.decide import Fault, Rules
from service.delivery import (
    Capture,
    Channel,
    Claim,
    Clock,
    Delivery,
    Entry,
    Inspector,
    Links,
    Member,
    Payments,
    Renderer,
    Result,
    Schedule,
    Send,
    Step,
    Store,
    StoreUnavailable,
    Transaction,
)
from service.metrics import Metrics
from service.pipeline.room import Room
from service.routing import Routes

LAST_WRITE_SECONDS = 2.0
_SETTLE_AGAIN = (0.2, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 60.0, 60.0)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What a pass leaves to be saved."""

    delivery: Delivery
    schedule: Schedule
    entries: tuple[Entry, ...]
    fault: Fault | None = None  # what it met is trouble of ours with a lane
    sent: str | None = None  # the channel that took a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """All that a pass talks to."""

    store: Store
    payments: Payments
    channels: tuple[Channel, ...]
    renderer: Renderer
    inspector: Inspector
    rules: Rules
    room: Room  # for what is sent
    trial_room: Room  # for what is only prepared, so that a capture waits for no slow relay
    born_at: datetime  # the record's birth
    clock: Clock
    jitter: Callable[[], float]
    metrics: Metrics
    routes: Routes
    links: Links | None = None


@dataclass(slots=True, kw_only=True)
class Work:
    """A pass under way: the one mutable thing here, never seen outside of this package."""

    parts: Parts
    claim: Claim
    claimed_at: datetime  # by our clock; the claim carries the database's
    delivery: Delivery
    sends: list[Send]
    captures: list[Capture]
    entries: list[Entry]
    move: Callable[[str], bool]
    transaction: Transaction | None = None
    members: tuple[Member, ...] = ()  # of a consolidated invoice: its purchases, as they were at the last look
    ours: bool = False  # resolved in this pass
    sent: str | None = None  # the channel that took the message in this pass

    @property
    def known(self) -> Transaction:
        """The transaction as it was last read, once it was."""
        assert self.transaction is not None
        return self.transaction


def database_now(work: Work) -> datetime:
    """The database's clock, carried on from the claim by the seconds that have passed here."""
    return work.claim.now + (work.parts.clock.now() - work.claimed_at)


def took(work: Work, step: str, began: float) -> float:
    seconds = work.parts.clock.monotonic() - began
    work.parts.metrics.step(step, seconds)
    return round(seconds * 1000, 1)


def enter(work: Work, step: Step, result: Result, *, detail: str | None, channel: str | None = None) -> None:
    entry = Entry(at=work.parts.clock.now(), step=step, result=result, detail=detail, channel=channel)
    work.entries.append(entry)


def free_id(owner: str, number: int, taken: Sequence[Send] | Sequence[Capture]) -> str:
    """Return the id of a new intent: numbered from `number` on, and of none that is known."""
    ids_taken = {intent.id for intent in taken}
    return next(name for n in count(number) if (name := f"{owner}#{n}") not in ids_taken)


def so_far(work: Work, entry: Entry) -> tuple[Entry, ...]:
    """Return what the history has not been told yet, so that an effect's own line comes after it."""
    told = (*work.entries, entry)
    work.entries.clear()
    return told


def told_already(work: Work, reason: str) -> bool:
    """Tell whether the history has this reason already, as the answer to an effect of this pass."""
    new = [send.answer for send in work.sends if send.settled_at and send not in work.claim.sends]
    return reason in new or any(c.detail == reason for c in work.captures if c not in work.claim.captures)


def ids(work: Work) -> dict[str, object]:
    return {"transaction_id": work.delivery.transaction_id, "attempt": work.delivery.attempt}


def alarm(work: Work, name: str, reason: str) -> None:
    work.parts.metrics.alarm(name)
    _log.warning(name, **ids(work), reason=reason)


async def record(work: Work, write: Callable[[], Awaitable[None]]) -> None:
    """Write a fact. It is worth waiting for the store, and it is finished even when the process is stopping."""
    writing = asyncio.ensure_future(_insist(work, write))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        # Not for long: the open intent says by itself that the outcome is not known.
        await asyncio.wait([writing], timeout=LAST_WRITE_SECONDS)
        writing.cancel()
        raise


async def _insist(work: Work, write: Callable[[], Awaitable[None]]) -> None:
    for delay in _SETTLE_AGAIN:
        try:
            return await write()
        except StoreUnavailable as exc:
            work.parts.metrics.alarm("alarm.store_unavailable")
            _log.warning("alarm.store_unavailable", reason=str(exc))
            await work.parts.clock.sleep(delay)
    return await write()
